"""What only this project has: caches for repeated documents, and a lane for bulk jobs."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from lychee_client import LycheeClient

from lychee_loadtest.quantile import quantile

from .callers import Caller, LycheeCaller
from .contestants import Server
from .documents import Call, Documents
from .measuring import WORKLOADS, Workload, measure
from .verdicts import Ratio, compare_rounds

__all__ = ["CacheResult", "LaneResult", "measure_caches", "measure_lanes"]

_HOT_CALLS: Final = 12
_HOT_TARGET: Final = 10.0
_LANE_TARGET: Final = 2.0
_INTERACTIVE: Final = Workload("interactive", "texts", 5, 1)
_BULK: Final = Workload("bulk", "texts", 1000, 1)
_INTERACTIVE_CALLS: Final = 4000  # more than fit into the time
_WARM_UP_CALLS: Final = 10


@dataclass(frozen=True)
class CacheResult:
    """One cache and one kind of documents: calls that send the same documents again.

    Attributes:
        workload: The name of the workload whose documents are sent.
        cache: Which cache it is.
        hot_ms: The median latency of a call.
        ratio: The hot throughput divided by the cold one of each round.
    """

    workload: str
    cache: str
    hot_ms: float
    ratio: Ratio


@dataclass(frozen=True)
class LaneResult:
    """Interactive calls alone and beside a bulk job.

    Attributes:
        alone_p50_ms: The median latency without the job; `alone_p99_ms` is the 99th percentile.
        alone_p99_ms: See `alone_p50_ms`.
        beside_p50_ms: The median latency while the job runs; `beside_p99_ms` is the 99th percentile.
        beside_p99_ms: See `beside_p50_ms`.
        calls: How many calls were measured without the job, and how many with it.
        ratio: The p99 beside the job divided by the p99 alone.
    """

    alone_p50_ms: float
    alone_p99_ms: float
    beside_p50_ms: float
    beside_p99_ms: float
    calls: tuple[int, int]
    ratio: Ratio


def measure_caches(
    server: Server, gateway: Caller, cold: dict[str, dict[str, list[float]]], documents: Documents
) -> Iterator[CacheResult]:
    """Send the same documents again and again, from one caller.

    Args:
        server: The running server.
        gateway: The caller of the gateway, which keeps embeddings in its cache, as it does by default.
        cold: The documents per second of each round without repeated documents, by workload and contestant.
        documents: The source of documents and queries.
    """
    with LycheeClient(server.grpc_url) as caching:
        variants: Sequence[tuple[str, str, Caller]] = (
            ("client's embedding cache, query new", "lychee", LycheeCaller(caching)),
            ("gateway's embedding cache, query new", "lychee gateway", gateway),
        )
        for workload in WORKLOADS[:2]:
            first = documents.call(workload.kind, workload.documents)
            for cache, contestant, caller in variants:
                caller.rank(first)
                queries = (documents.query() for _ in range(_HOT_CALLS))
                sample = measure(caller, [Call(query, first.documents) for query in queries], 1, float("inf"))
                hot_ms = statistics.median(sample.latencies_ms)
                rounds = cold[workload.name][contestant]
                hot = [1e3 * workload.documents / hot_ms] * len(rounds)
                name = f"{workload.name}, {cache}: hot / cold"
                yield CacheResult(workload.name, cache, hot_ms, compare_rounds(name, hot, rounds, _HOT_TARGET))


def measure_lanes(server: Server, documents: Documents, seconds: float) -> LaneResult:
    """Measure interactive calls of one caller, alone and beside a job that ranks 1,000 new texts, again and again.

    Raises:
        RuntimeError: The job failed.
    """
    with LycheeClient(server.grpc_url, embedding_cache=None) as client:
        interactive, bulk = LycheeCaller(client), LycheeCaller(client, {"priority": "bulk"})

        def loop() -> tuple[float, ...]:
            return measure(
                interactive, list(_draw(documents, _INTERACTIVE_CALLS)), _INTERACTIVE.callers, seconds
            ).latencies_ms

        measure(interactive, list(_draw(documents, _WARM_UP_CALLS)), _INTERACTIVE.callers, seconds)
        alone = loop()
        ended, problems = threading.Event(), list[Exception]()

        def run_job() -> None:
            jobs = Documents(10**6)
            try:
                while not ended.is_set():
                    bulk.rank(jobs.call(_BULK.kind, _BULK.documents))
            except Exception as error:
                if not ended.is_set():
                    problems.append(error)

        job = threading.Thread(target=run_job, daemon=True)
        job.start()
        beside = loop()
        ended.set()
    # Leaving the block closed the client, and with it the job's calls.
    job.join()
    if problems:
        raise RuntimeError(f"the bulk job failed: {problems[0]}") from problems[0]
    alone_p99_ms, beside_p99_ms = quantile(alone, 0.99), quantile(beside, 0.99)
    name = "interactive p99, beside a bulk job of 1,000 texts / alone"
    return LaneResult(
        alone_p50_ms=quantile(alone, 0.5),
        alone_p99_ms=alone_p99_ms,
        beside_p50_ms=quantile(beside, 0.5),
        beside_p99_ms=beside_p99_ms,
        calls=(len(alone), len(beside)),
        ratio=compare_rounds(name, [beside_p99_ms], [alone_p99_ms], _LANE_TARGET, at_least=False),
    )


def _draw(documents: Documents, count: int) -> Iterator[Call]:
    for _ in range(count):
        yield documents.call(_INTERACTIVE.kind, _INTERACTIVE.documents)
