"""Compare this project's speed with alternatives: the same CLIP weights, the same documents, one run.

    python -m lychee_loadtest.compare.run --prepare     # once: environments, checkpoint, export
    python -m lychee_loadtest.compare.run               # measure; prints a table, writes JSON

All servers are started, one at a time gets work, in turn, for several rounds. Nothing is timed before all rank alike.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from lychee_client import LycheeClient

from lychee_loadtest.compare.contestants import (
    ALTERNATIVES,
    Place,
    own_contestants,
    run_lychee,
    start,
    start_session,
    why_left_out,
)
from lychee_loadtest.compare.documents import Documents
from lychee_loadtest.compare.environments import PreparationError
from lychee_loadtest.compare.measuring import busy_share
from lychee_loadtest.compare.own import measure_caches, measure_lanes
from lychee_loadtest.compare.preparation import check, prepare
from lychee_loadtest.compare.processes import ENVIRONMENT
from lychee_loadtest.compare.rounds import REFERENCE, Tournament, measure_ceiling
from lychee_loadtest.compare.verdicts import Ratio, format_table
from lychee_loadtest.folders import RESULTS, write_record
from lychee_loadtest.machine import describe_machine

FORMAT: Final = 2
QUIET_SHARE: Final = 0.1
QUIET_SECONDS: Final = 3.0
LANE_LOOPS: Final = 6
LANE_SEED, CACHE_SEED, CHECK_SEED = 901, 902, 903


def run(place: Place, alternatives: tuple[str, ...], rounds: int, seconds: float) -> tuple[dict[str, Any], list[Ratio]]:
    """Start everything, check, measure, stop everything; return what the JSON file holds and the table's lines.

    An alternative that has no place on this machine is named and left out.

    Raises:
        PreparationError: A server did not start, or its scores are not those of torch.
    """
    left_out = {name: reason for name in alternatives if (reason := why_left_out(name)) is not None}
    for name, reason in left_out.items():
        print(f"{name} is left out: {reason}", flush=True)
    with ExitStack() as stack:
        others = [stack.enter_context(start(name, place)) for name in alternatives if name not in left_out]
        server = stack.enter_context(run_lychee(place))
        others.append(start_session(place, server.executions))
        client = stack.enter_context(LycheeClient(server.grpc_url, embedding_cache=None))
        ours = own_contestants(place, server, client)
        tournament = Tournament([*others, *ours], seconds)
        agreements = tournament.check(Documents(CHECK_SEED))
        tournament.warm_up()
        busy = busy_share(QUIET_SECONDS)
        if busy > QUIET_SHARE:
            print(
                f"warning: other work takes {busy:.0%} of this machine's cores while all servers are idle", flush=True
            )
        for number in range(rounds):
            print(f"round {number + 1} of {rounds} ...", flush=True)
            tournament.run_round(number)
        print("caches and lanes ...", flush=True)
        gateway = ours[1].caller
        caches = list(measure_caches(server, gateway, tournament.rates, Documents(CACHE_SEED)))
        lanes = measure_lanes(server, Documents(LANE_SEED), LANE_LOOPS * seconds)
        ceiling = measure_ceiling(tournament, place, server.executions)
    ratios = [*tournament.ratios(), *(cache.ratio for cache in caches), lanes.ratio]
    content = {
        "format": FORMAT,
        "machine": describe_machine(),
        "precision": place.precision,
        "executions": server.executions,
        "left_out": left_out,
        "rounds": rounds,
        "seconds": seconds,
        "busy_share_when_idle": busy,
        "versions": {contestant.name: contestant.versions for contestant in tournament.contestants},
        "agreement": agreements,
        "workloads": tournament.summary(ceiling),
        "ceiling": ceiling,
        "caches": [asdict(cache) for cache in caches],
        "lanes": asdict(lanes),
        "ratios": [asdict(ratio) | {"met": ratio.met} for ratio in ratios],
    }
    return content, ratios


def print_report(content: dict[str, Any], ratios: list[Ratio]) -> None:
    """Print what `docs/benchmarks/comparison.md` shows, as Markdown."""
    machine, ceiling, lanes = content["machine"], content["ceiling"], content["lanes"]
    print(
        f"\n{machine['cpu']}, {machine['cores']} cores, {machine['date']}, {content['precision']}; medians of rounds\n"
    )
    print("| workload | contestant | documents/s | p50 | p99 | share of the matrix rate |\n|---|---|---|---|---|---|")
    for workload, contestants in content["workloads"].items():
        for name, line in contestants.items():
            numbers = f"{line['documents_per_s']:.1f} | {line['p50_ms']:.0f} ms | {line['p99_ms']:.0f} ms"
            print(f"| {workload} | {name} | {numbers} | {100 * line['share_of_matrix_rate']:.0f} % |")
    print("\n" + "\n".join(format_table(ratios)) + "\n")
    for name, reason in content["left_out"].items():
        print(f"{name} is left out: {reason}")
    print("executed by: " + ", ".join(f"{name} {how}" for name, how in content["executions"].items()))
    executed = ceiling["executions"]
    rates = ", ".join(
        f"{rate:.0f} GFLOP/s for {kind} ({executed[kind]})" for kind, rate in ceiling["gflop_per_s"].items()
    )
    print(f"matrix products: {rates}; {ceiling['tokens_per_text']:.1f} tokens for a text, without padding")
    for cache in content["caches"]:
        print(f"{cache['workload']}, {cache['cache']}: {cache['hot_ms']:.1f} ms")
    print(
        f"interactive calls alone: p50 {lanes['alone_p50_ms']:.0f} ms, p99 {lanes['alone_p99_ms']:.0f} ms; beside a "
        f"bulk job: p50 {lanes['beside_p50_ms']:.0f} ms, p99 {lanes['beside_p99_ms']:.0f} ms; calls {lanes['calls']}"
    )


def main() -> int:
    """Print the table, write the JSON file; return 1 if a target was missed and 2 if nothing could be measured."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--prepare", action="store_true", help="make what is missing, with a package index; no measuring"
    )
    parser.add_argument("--precision", default="fp32", help="of our export, as `lychee export --precision`")
    parser.add_argument("--alternatives", nargs="*", default=list(ALTERNATIVES), choices=ALTERNATIVES, metavar="NAME")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each loop; calls under way are finished")
    parser.add_argument("--folder", type=Path, default=Path(".compare"), help="environments, checkpoint, repositories")
    parser.add_argument("--output", type=Path, default=RESULTS / "compare.json")
    arguments = parser.parse_args()
    alternatives = tuple(name for name in ALTERNATIVES if name in arguments.alternatives or name == REFERENCE)
    os.environ.update(ENVIRONMENT)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # stops the servers on the way out
    try:
        with tempfile.TemporaryDirectory(prefix="lychee-compare-") as logs:
            place = Place(arguments.folder.absolute(), arguments.precision, Path(logs))
            if arguments.prepare:
                prepare(place, alternatives)
                return 0
            check(place, alternatives)
            content, ratios = run(place, alternatives, arguments.rounds, arguments.seconds)
    except PreparationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print_report(content, ratios)
    write_record(arguments.output, content)
    print(f"\nwritten to {arguments.output}")
    return 1 if any(ratio.met is False for ratio in ratios) else 0


if __name__ == "__main__":
    sys.exit(main())
