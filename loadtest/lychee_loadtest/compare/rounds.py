"""All contestants in turn, round by round."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from lychee_loadtest.quantile import quantile

from .ceiling import Arithmetic, measure_matrix_rate
from .contestants import Contestant, Place
from .documents import Documents
from .environments import PreparationError
from .measuring import WORKLOADS, Workload, draw_calls, measure
from .session import SessionCaller
from .verdicts import (
    BETTER_TORCH_TARGET,
    SESSION_TARGETS,
    TARGETS,
    TORCH,
    Ratio,
    compare_rounds,
    compare_scores,
    tolerance_of,
)

__all__ = ["OURS", "REFERENCE", "Tournament", "measure_ceiling"]

REFERENCE: Final = "fastapi"
"""Whose scores are those of torch in float32."""
OURS: Final = ("lychee", "lychee gateway")

_CHECKED: Final = {"texts": 50, "photos": 12}
_ENCODERS: Final = {"texts": "text_encoder", "photos": "vision_encoder"}
_COUNTED_TEXTS: Final = 200

Numbers = dict[str, dict[str, list[float]]]


class Tournament:
    """Measures contestants that are all running.

    Args:
        contestants: The alternatives first, then OURS.
        seconds: How long one loop lasts.

    Attributes:
        contestants: The contestants, in the same order.
        rates: The documents per second of each round, by workload and contestant.
    """

    def __init__(self, contestants: Sequence[Contestant], seconds: float) -> None:
        self.contestants = contestants
        self.rates: Numbers = {workload.name: {one.name: [] for one in contestants} for workload in WORKLOADS}
        self._latencies_ms: Numbers = {workload.name: {one.name: [] for one in contestants} for workload in WORKLOADS}
        self._guesses: dict[tuple[str, str], float] = {}
        self._seconds = seconds

    def check(self, documents: Documents) -> dict[str, dict[str, Any]]:
        """Compare everyone's scores with torch's in float32; return how well they agree, by kind and contestant.

        How far they may differ follows from the precision that a contestant computes in.

        Raises:
            PreparationError: A contestant's scores or order differ: it computes something else.
        """
        agreements: dict[str, dict[str, Any]] = {}
        for kind, count in _CHECKED.items():
            call = documents.call(kind, count)
            scores = {one.name: one.caller.rank(call) for one in self.contestants}
            agreements[kind] = {}
            for one in self.contestants:
                precision = one.precisions[kind]
                allowed = tolerance_of(precision)
                agreement = compare_scores(scores[REFERENCE], scores[one.name], allowed)
                if not agreement.is_within(allowed):
                    raise PreparationError(
                        f"{one.name} does not rank {count} {kind} as torch does: the largest difference is "
                        f"{agreement.error:.3g} standard deviations, expected at most {allowed:g} ({precision}); "
                        f"same order: {agreement.same_order}. Do its checkpoint and its export belong together?"
                    )
                agreements[kind][one.name] = asdict(agreement) | {"precision": precision, "allowed": allowed}
        return agreements

    def warm_up(self) -> None:
        """Send every workload to everyone once, and learn roughly how fast they are."""
        for number, workload in enumerate(WORKLOADS):
            for one in self.contestants:
                documents = Documents(800 + number, *_salt(one))
                calls = [documents.call(workload.kind, workload.documents) for _ in range(workload.callers)]
                sample = measure(one.caller, calls, workload.callers, self._seconds)
                self._guesses[workload.name, one.name] = sample.documents_per_s

    def run_round(self, number: int) -> None:
        """Measure every workload with everyone; who begins changes from round to round."""
        first = number % len(self.contestants)
        for workload in WORKLOADS:
            for one in [*self.contestants[first:], *self.contestants[:first]]:
                documents = Documents(number, WORKLOADS.index(workload), *_salt(one))
                guess = max([self._guesses[workload.name, one.name], *self.rates[workload.name][one.name]])
                calls = draw_calls(documents, workload, guess, self._seconds)
                sample = measure(one.caller, calls, workload.callers, self._seconds)
                self.rates[workload.name][one.name].append(sample.documents_per_s)
                self._latencies_ms[workload.name][one.name] += sample.latencies_ms

    def ratios(self) -> list[Ratio]:
        """Return this project's throughput by that of every alternative, and of the better torch service.

        The targets hold for the SDK.
        """
        ratios = []
        sessions = [one.precisions for one in self.contestants if one.name == "session"]
        kinds = {workload.name: workload.kind for workload in WORKLOADS}
        for ours in OURS:
            for workload, rates in self.rates.items():
                better = max((name for name in TORCH if name in rates), key=lambda name: statistics.median(rates[name]))
                compared: list[tuple[str, str, float | None]] = [
                    (f"better torch service ({better})", better, BETTER_TORCH_TARGET),
                    *((name, name, target) for name, target in TARGETS.items() if name in rates),
                    *(("session", "session", SESSION_TARGETS[precisions[kinds[workload]]]) for precisions in sessions),
                ]
                for label, other, target in compared:
                    wanted = target if ours == OURS[0] else None
                    ratios.append(compare_rounds(f"{workload}: {ours} / {label}", rates[ours], rates[other], wanted))
        return ratios

    def summary(self, ceiling: Mapping[str, Any]) -> dict[str, dict[str, dict[str, float | list[float]]]]:
        """Return the numbers of each workload and contestant."""
        summary: dict[str, dict[str, dict[str, float | list[float]]]] = {}
        for workload in WORKLOADS:
            summary[workload.name] = {}
            for name, rounds in self.rates[workload.name].items():
                latencies_ms = self._latencies_ms[workload.name][name]
                rate = statistics.median(rounds)
                gflop = ceiling["gflop_per_document"][workload.name]
                summary[workload.name][name] = {
                    "documents_per_s": rate,
                    "documents_per_s_rounds": rounds,
                    "p50_ms": quantile(latencies_ms, 0.5),
                    "p99_ms": quantile(latencies_ms, 0.99),
                    "calls": len(latencies_ms),
                    "gflop_per_s": rate * gflop,
                    "share_of_matrix_rate": rate * gflop / ceiling["gflop_per_s"][workload.kind],
                }
        return summary


def measure_ceiling(tournament: Tournament, place: Place, executions: Mapping[str, str]) -> dict[str, Any]:
    """Measure the machine's matrix products, and count what a document of each workload needs, its query shared out.

    Args:
        tournament: The tournament; exactly one of its contestants has a SessionCaller, which counts the tokens.
        place: Where the comparison keeps its files.
        executions: What executes each encoder, by the encoder's name; the products are executed alike.
    """
    place.logs.mkdir(exist_ok=True)
    executed = {kind: executions[encoder] for kind, encoder in _ENCODERS.items()}
    with tempfile.TemporaryDirectory() as folder:
        rates = {kind: measure_matrix_rate(kind, Path(folder), how) / 1e9 for kind, how in executed.items()}
    (session,) = [one.caller for one in tournament.contestants if isinstance(one.caller, SessionCaller)]
    documents = Documents(700)
    call = documents.call("texts", _COUNTED_TEXTS)
    queries = [documents.query() for _ in range(_COUNTED_TEXTS)]
    text_tokens = session.count_tokens([text for text in call.documents if isinstance(text, str)]) / _COUNTED_TEXTS
    query_tokens = session.count_tokens(queries) / _COUNTED_TEXTS

    def count(workload: Workload) -> float:
        document = Arithmetic.of_photo() if workload.kind == "photos" else Arithmetic.of_text(text_tokens)
        return (document + Arithmetic.of_text(query_tokens) / workload.documents) / 1e9

    return {
        "executions": executed,
        "gflop_per_s": rates,
        "gflop_per_document": {workload.name: count(workload) for workload in WORKLOADS},
        "tokens_per_text": text_tokens,
        "tokens_per_query": query_tokens,
    }


def _salt(contestant: Contestant) -> tuple[int, ...]:
    """Everyone gets the same documents, but not twice through the same gateway, whose cache would know them."""
    return (OURS.index(contestant.name),) if contestant.name in OURS else (0,)
