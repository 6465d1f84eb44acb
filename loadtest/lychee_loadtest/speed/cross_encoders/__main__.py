"""Compare the speed of a text cross-encoder of bge-reranker-base's shape with alternatives; as tables.

    python -m lychee_loadtest.speed.cross_encoders --prepare    # once: the environment of Infinity
    python -m lychee_loadtest.speed.cross_encoders              # measures

Makes a checkpoint with random weights, exports it, starts all contestants of one precision, and gives them the same
amounts of work in turn. Nothing is timed before all rank alike. On a machine that others use too, texts per CPU second
say more than texts per second.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lychee_export.exporter import export_checkpoint

from lychee_loadtest.compare.callers import Caller
from lychee_loadtest.compare.environments import PreparationError
from lychee_loadtest.compare.measuring import measure
from lychee_loadtest.compare.processes import ENVIRONMENT, pause
from lychee_loadtest.compare.verdicts import Ratio, compare_rounds, compare_scores, format_table, tolerance_of
from lychee_loadtest.execution import computes_bfloat16
from lychee_loadtest.machine import describe_machine
from lychee_loadtest.speed.bulk_bench import CpuTime

from .alternatives import ENGINES, environment_of, export_for_optimum, run_infinity
from .checkpoint import LAYERS, build_checkpoint
from .own import run_own
from .session import SessionCaller
from .texts import Texts
from .torch_caller import TorchCaller

__all__ = ["main"]

ROUNDS: Final = 3
OURS: Final = ("lychee", "lychee gateway")
SESSION: Final = "session"
REFERENCE: Final = "CrossEncoder"
OTHERS_TARGET: Final = 1.5
"""Texts per second of the SDK, by those of the better alternative in the same precision."""
SESSION_TARGET: Final = 0.95
CHECKED: Final = 24
TOLERANCES: Final = {"fp32": tolerance_of("fp32"), "bf16": 0.3}
"""Allowed errors, in standard deviations of the scores. In bfloat16 12 layers of random weights move torch's own scores
by 0.13, and a wrong model moved them by 2."""
ENVIRONMENT_FOLDER: Final = Path(".compare", "cross-encoders")


@dataclass(frozen=True)
class Workload:
    """What callers ask for in a round: each sends one call.

    Attributes:
        name: The name that it has in tables.
        callers: How many callers there are.
        documents: How many texts a call has.
    """

    name: str
    callers: int
    documents: int


WORKLOADS: Final = (Workload("1 query x 100 texts", 1, 100), Workload("16 callers, 1 query x 20 texts", 16, 20))


@dataclass
class Rates:
    """What one contestant reached with one workload.

    Attributes:
        texts_per_s: Texts per second, by round.
        texts_per_cpu_s: Texts per second of CPU time, servers included, by round.
    """

    texts_per_s: list[float] = field(default_factory=list)
    texts_per_cpu_s: list[float] = field(default_factory=list)


def check(contestants: Mapping[str, Caller], precision: str, reference: Caller) -> None:
    """Refuse contestants that do not rank as torch in float32 does.

    Raises:
        PreparationError: One does not.
    """
    allowed = TOLERANCES[precision]
    expected = reference.rank(Texts("check", "check").call(CHECKED))
    for name, caller in contestants.items():
        agreement = compare_scores(expected, caller.rank(Texts("check", "check").call(CHECKED)), allowed)
        print(f"{precision} {name}: scores off by {agreement.error:.2g} standard deviations", flush=True)
        if not agreement.is_within(allowed):
            raise PreparationError(
                f"{name} does not rank {CHECKED} texts as torch does: the largest difference is {agreement.error:.3g} "
                f"standard deviations, expected at most {allowed:g} ({precision}); same order: {agreement.same_order}"
            )


def run_round(
    number: int,
    contestants: Mapping[str, Caller],
    gateway: subprocess.Popen[bytes],
    rates: Mapping[str, Mapping[str, Rates]],
) -> None:
    """Give everyone the same lengths in turn; who begins changes from round to round.

    The gateway rests while others have their turn: its probes would take a few percent of the cores from them.
    """
    names = list(contestants)
    first = number % len(names)
    used = CpuTime(os.getpid())
    for workload in WORKLOADS:
        for name in [*names[first:], *names[:first]]:
            texts = Texts(f"{number} {workload.name}", f"{number} {workload.name} {name}")
            calls = [texts.call(workload.documents) for _ in range(workload.callers)]
            before_s = used.read()
            with nullcontext() if name == OURS[1] else pause(gateway):
                rate = measure(contestants[name], calls, workload.callers, float("inf")).documents_per_s
            cpu_rate = len(calls) * workload.documents / (used.read() - before_s)
            rates[workload.name][name].texts_per_s.append(rate)
            rates[workload.name][name].texts_per_cpu_s.append(cpu_rate)
            print(f"round {number}: {workload.name}: {name} {rate:.2f} /s, {cpu_rate:.2f} per CPU second", flush=True)


def summarize(precision: str, rates: Mapping[str, Mapping[str, Rates]]) -> None:
    """Print what everyone reached, and the ratios."""
    ratios: list[Ratio] = []
    print(f"\n| {precision}: texts per second (per CPU second) | {' | '.join(rates)} |")
    print("|---" * (len(rates) + 1) + "|")
    for name in next(iter(rates.values())):
        cells = [
            f"{statistics.median(found[name].texts_per_s):.1f} ({statistics.median(found[name].texts_per_cpu_s):.1f})"
            for found in rates.values()
        ]
        print(f"| {name} | {' | '.join(cells)} |")
    for workload, found in rates.items():
        others = [name for name in found if name not in (*OURS, SESSION)]
        for ours in OURS:
            for kind in ("texts_per_s", "texts_per_cpu_s"):
                better = max(others, key=lambda name: statistics.median(getattr(found[name], kind)))
                for other, target in ((better, OTHERS_TARGET), (SESSION, SESSION_TARGET)):
                    unit = "" if kind == "texts_per_s" else ", per CPU second"
                    wanted = target if ours == OURS[0] and not unit else None
                    label = f"{other}, the better alternative" if other == better else other
                    title = f"{precision}, {workload}: {ours} / {label}{unit}"
                    rounds = getattr(found[ours], kind), getattr(found[other], kind)
                    ratios.append(compare_rounds(title, *rounds, wanted))
    print("\n".join(["", *format_table(ratios), ""]), flush=True)


def compare(precision: str, folder: Path, environment: Path, rounds: int, alternatives: list[str]) -> None:
    """Run all contestants of one precision, and print what they reached.

    Raises:
        PreparationError: One of them does not start, or ranks otherwise.
    """
    checkpoint, onnx, repository = folder / "checkpoint", folder / "onnx", folder / "repository"
    with ExitStack() as stack:
        contestants: dict[str, Caller] = {}
        own = stack.enter_context(run_own(repository, precision, folder))
        contestants |= dict(zip(OURS, own.callers, strict=True))
        session = SessionCaller(repository, own.execution)
        contestants[SESSION] = session
        reference = TorchCaller(checkpoint, "fp32")
        contestants[REFERENCE] = reference if precision == "fp32" else TorchCaller(checkpoint, precision)
        for engine in ENGINES[precision]:
            if engine in alternatives:
                model = onnx if engine == "optimum" else checkpoint
                log = folder / f"infinity-{engine}-{precision}.log"
                contestants[f"Infinity, {engine}"] = stack.enter_context(
                    run_infinity(environment_of(environment), engine, precision, model, log)
                )
        tokens, padded = session.count_tokens(Texts("count", "count").call(1000))
        print(f"{precision}: {own.execution}; {tokens / 1000:.1f} tokens a pair, {padded / tokens:.3f} times padded")
        check(contestants, precision, reference)
        if precision != "fp32":
            del reference
        rates = {workload.name: {name: Rates() for name in contestants} for workload in WORKLOADS}
        for name, caller in contestants.items():
            caller.rank(Texts("warm up", f"warm up {name}").call(WORKLOADS[0].documents))
        for number in range(1, rounds + 1):
            run_round(number, contestants, own.gateway, rates)
        summarize(precision, rates)


def main() -> None:
    """Print every round, and the tables."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", action="store_true", help="make the environment of Infinity, and end")
    parser.add_argument("--environment", type=Path, default=ENVIRONMENT_FOLDER, help="where that environment is")
    parser.add_argument("--layers", type=int, default=LAYERS, help="of the checkpoint")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=["fp32", "bf16"])
    parser.add_argument("--engines", nargs="*", default=["torch", "optimum"], help="those of Infinity that take part")
    parser.add_argument("--folder", type=Path, help="keeps checkpoint and exports for the next time")
    arguments = parser.parse_args()
    environment = environment_of(arguments.environment.absolute())
    if arguments.prepare:
        environment.prepare()
        return
    os.environ.update(ENVIRONMENT)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # stops the servers on the way out
    machine = describe_machine()
    print(f"{machine['cpu']}, {machine['cores']} cores, {machine['date']}; load {os.getloadavg()[0]:.1f}", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["LYCHEE_CACHE_DIR"] = str(Path(temporary, "cache"))  # what executes is chosen now, not remembered
        folder = (arguments.folder or Path(temporary)).absolute()
        if not (folder / "checkpoint" / "config.json").is_file():
            build_checkpoint(folder / "checkpoint", arguments.layers)
        if not (folder / "repository").is_dir():
            export_checkpoint(str(folder / "checkpoint"), folder / "repository")
        if "optimum" in arguments.engines and not (folder / "onnx").is_dir():
            export_for_optimum(environment, folder / "checkpoint", folder / "onnx", folder / "optimum.log")
        for precision in arguments.precisions:
            if precision == "bf16" and not computes_bfloat16():
                print("bf16 is left out: this CPU has no instructions for it")
                continue
            compare(precision, folder, arguments.environment.absolute(), arguments.rounds, arguments.engines)
    print(f"load at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
