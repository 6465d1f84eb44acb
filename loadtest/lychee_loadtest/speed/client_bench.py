"""What the client itself costs: four transports, shared memory, embedding cache, memory, and the two lanes."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.synchronize import Event
from typing import Any

from lychee_client import AsyncLycheeClient, Image, LycheeClient, Priority
from tritonclient.grpc import InferenceServerClient

from lychee_loadtest.memory.process_memory import read_process, reset_peak
from lychee_loadtest.payloads import fresh_photos, fresh_queries, fresh_texts
from lychee_loadtest.quantile import quantile
from lychee_loadtest.speed.measurement import Measurement

__all__ = ["measure_client"]

ROUNDS = 8
CALLS_PER_ROUND = 25
LIST_LENGTH = 20
SHARED_ROUNDS = 30
CACHE_ROUNDS = 10
CACHED_TEXTS = 100
MANY_TEXTS = 1000
LANE_ROUNDS = 5
LANE_SECONDS = 5.0
BULK_TEXTS = 64
SALT = 10**6
"""Between the numbers at which runs of fresh payloads begin."""


def measure_client(grpc_url: str, http_url: str) -> Iterator[Measurement]:
    """Measure everything that this module knows, on a running server.

    Args:
        grpc_url: The address of the gRPC port, "HOST:PORT".
        http_url: The address of the HTTP port, likewise.
    """
    urls = {"gRPC": grpc_url, "HTTP": f"http://{http_url}"}
    yield from measure_transports(urls, grpc_url)
    yield from measure_shared_memory(urls)
    yield from measure_embedding_cache(grpc_url)
    yield from measure_memory(grpc_url)
    yield from measure_lanes(grpc_url)


def measure_transports(urls: dict[str, str], grpc_url: str) -> Iterator[Measurement]:
    """Compare the four clients in turn: one short text pair, computed every time.

    The overhead is the wall time without preprocessing and without what the server counts for the two requests.
    """
    walls: dict[str, list[float]] = {}
    overheads: dict[str, list[float]] = {}
    loop = asyncio.new_event_loop()
    synchronous = {f"sync {name}": LycheeClient(url, embedding_cache=None) for name, url in urls.items()}
    asynchronous = {f"async {name}": AsyncLycheeClient(url, embedding_cache=None) for name, url in urls.items()}
    rounds: dict[str, Callable[[], list[Timed]]] = {
        name: partial(time_calls, client) for name, client in synchronous.items()
    }
    for name, other in asynchronous.items():
        rounds[name] = lambda other=other: loop.run_until_complete(time_async_calls(other))  # type: ignore[misc]
    with InferenceServerClient(grpc_url) as triton:
        for run_round in rounds.values():
            run_round()
        for _ in range(ROUNDS):
            for name, run_round in rounds.items():
                before = server_ms(triton)
                timed = run_round()
                served = (server_ms(triton) - before) / len(timed)
                wall = statistics.median(call.wall_ms for call in timed)
                preprocessing = statistics.median(call.preprocess_ms for call in timed)
                walls.setdefault(name, []).append(wall)
                overheads.setdefault(name, []).append(wall - preprocessing - served)
    for client in synchronous.values():
        client.close()
    for other in asynchronous.values():
        loop.run_until_complete(other.aclose())
    loop.close()
    for name, values in walls.items():
        yield Measurement(f"{name}: 1 text pair", statistics.median(values), "ms")
    for name, values in overheads.items():
        yield Measurement(f"{name}: overhead of the client", statistics.median(values), "ms", 1.5)


@dataclass(frozen=True)
class Timed:
    """One call."""

    wall_ms: float
    preprocess_ms: float


def time_calls(client: LycheeClient) -> list[Timed]:
    """Time calls with one text pair, one after the other."""
    timed = []
    for _ in range(CALLS_PER_ROUND):
        started = time.perf_counter()
        response = client.rerank("a cat", ["a small cat"])
        timed.append(Timed(1e3 * (time.perf_counter() - started), response.timings.preprocess_ms))
    return timed


async def time_async_calls(client: AsyncLycheeClient) -> list[Timed]:
    """Time the same calls of the asynchronous client."""
    timed = []
    for _ in range(CALLS_PER_ROUND):
        started = time.perf_counter()
        response = await client.rerank("a cat", ["a small cat"])
        timed.append(Timed(1e3 * (time.perf_counter() - started), response.timings.preprocess_ms))
    return timed


def server_ms(triton: InferenceServerClient) -> float:
    """Return the milliseconds that the server has counted for texts, query and document together, and their scores."""
    total = {
        model.name: model.inference_stats.success.ns / 1e6 for model in triton.get_inference_statistics().model_stats
    }
    return float(total["text_encoder"] + total["scoring_head_text"])


def measure_shared_memory(urls: dict[str, str]) -> Iterator[Measurement]:
    """Compare sending pixels with sharing them, in turn: photos that are decoded already."""
    photos = [Image.from_bytes(data) for data in itertools.islice(fresh_photos(), LIST_LENGTH)]
    for name, url in urls.items():
        with (
            LycheeClient(url, embedding_cache=None) as sending,
            LycheeClient(url, embedding_cache=None, shared_memory=True) as sharing,
        ):
            latencies: dict[bool, list[float]] = {False: [], True: []}
            for client in (sending, sharing):
                client.rerank("a cat", photos)
            for _ in range(SHARED_ROUNDS):
                for shared, client in ((False, sending), (True, sharing)):
                    started = time.perf_counter()
                    client.rerank("a cat", photos)
                    latencies[shared].append(1e3 * (time.perf_counter() - started))
        yield Measurement(f"{name}: 20 decoded photos, sent", statistics.median(latencies[False]), "ms")
        yield Measurement(f"{name}: 20 decoded photos, shared memory", statistics.median(latencies[True]), "ms")


def measure_embedding_cache(url: str) -> Iterator[Measurement]:
    """Compare calls with and without an embedding cache, in turn: new documents, and the same with another query.

    Each image comes as the bytes of its file, as callers of a gateway send it.
    """
    start = SALT // 2  # no other measurement begins there
    queries, texts, photos = fresh_queries(start), fresh_texts(start), fresh_photos(start)
    with LycheeClient(url, embedding_cache=None) as without, LycheeClient(url) as caching:
        kinds: tuple[tuple[str, Iterator[bytes] | Iterator[str], int], ...] = (
            ("photos", photos, LIST_LENGTH),
            ("short texts", texts, CACHED_TEXTS),
        )
        for name, source, length in kinds:
            latencies: dict[tuple[str, str], list[float]] = {}
            for turn in range(CACHE_ROUNDS + 1):  # the first one warms up
                for label, client in (("without cache", without), ("embedding cache", caching)):
                    contents: list[bytes | str] = list(itertools.islice(source, length))
                    for state in ("new", "again"):
                        query = next(queries)
                        documents: list[Image | str] = [
                            Image.from_bytes(item) if isinstance(item, bytes) else item for item in contents
                        ]
                        started = time.perf_counter()
                        client.rerank(query, documents)
                        if turn:
                            elapsed = 1e3 * (time.perf_counter() - started)
                            latencies.setdefault((state, label), []).append(elapsed)
            for (state, label), values in sorted(latencies.items(), reverse=True):
                yield Measurement(f"{length} {name}, {state}, {label}", statistics.median(values), "ms")


def measure_memory(url: str) -> Iterator[Measurement]:
    """Measure how much a process grows by one call with many texts."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        yield Measurement("memory of 1 call with 1000 texts", pool.apply(growth_mb, (url,)), "MB", 150)


def growth_mb(url: str) -> float:
    """Return by how much this process's memory exceeds, at its peak, what it was before the call, in megabytes."""
    with LycheeClient(url, embedding_cache=None) as client:
        client.rerank("a cat", ["a small cat"])
        reset_peak()
        before = read_process().rss_bytes
        client.rerank("a cat", list(itertools.islice(fresh_texts(), MANY_TEXTS)), timeout_s=300)
        return (read_process().peak_bytes - before) / 1e6


def measure_lanes(url: str) -> Iterator[Measurement]:
    """Compare interactive calls alone and beside each kind of bulk job, in turn. The job is another process."""
    latencies: dict[Priority | None, list[float]] = {None: [], "interactive": [], "bulk": []}
    rates: dict[Priority, list[float]] = {"interactive": [], "bulk": []}
    salts = itertools.count(1)
    with LycheeClient(url, embedding_cache=None) as client:
        for _ in range(LANE_ROUNDS):
            for priority, values in latencies.items():
                if priority is None:
                    values += time_pairs(client, next(salts))
                else:
                    with bulk_job(url, priority, next(salts)) as finished:
                        values += time_pairs(client, next(salts))
                    rates[priority] += finished
    alone = latencies.pop(None)
    alone_p50, alone_p99 = quantile(alone, 0.5), quantile(alone, 0.99)
    yield Measurement("1 new text pair alone, p50", alone_p50, "ms")
    yield Measurement("1 new text pair alone, p99", alone_p99, "ms")
    for priority, values in latencies.items():
        assert priority is not None
        label = f"beside a job with priority {priority}"
        yield Measurement(f"the same {label}, p50 / p50 alone", quantile(values, 0.5) / alone_p50, "")
        target = 2.0 if priority == "bulk" else None
        yield Measurement(f"the same {label}, p99 / p99 alone", quantile(values, 0.99) / alone_p99, "", target)
        yield Measurement(f"texts per second of that job ({priority})", statistics.median(rates[priority]), "1/s")


def time_pairs(client: LycheeClient, salt: int) -> list[float]:
    """Time calls with one new text pair each, one after the other; milliseconds."""
    start = SALT * salt
    timed = []
    ends = time.monotonic() + LANE_SECONDS
    for query, text in zip(fresh_queries(start), fresh_texts(start), strict=False):
        if time.monotonic() > ends:
            break
        started = time.perf_counter()
        client.rerank(query, [text], timeout_s=300)
        timed.append(1e3 * (time.perf_counter() - started))
    return timed


@contextmanager
def bulk_job(url: str, priority: Priority, salt: int) -> Iterator[list[float]]:
    """Rank new texts without pause in another process; yield a list for the texts per second of each call."""
    context = multiprocessing.get_context("spawn")
    began, stop, rates = context.Event(), context.Event(), context.SimpleQueue()
    job = context.Process(target=rank_until, args=(url, priority, salt, began, stop, rates))
    job.start()
    finished: list[float] = []
    began.wait()
    try:
        yield finished
    finally:
        stop.set()
        finished += rates.get()
        job.join()


def rank_until(url: str, priority: Priority, salt: int, began: Event, stop: Event, rates: Any) -> None:
    """Rank new texts again and again; say when the first call is over, and how many per second each later one had."""
    texts = fresh_texts(SALT * salt)
    measured = []
    with LycheeClient(url, embedding_cache=None) as client:
        while not stop.is_set():
            documents = list(itertools.islice(texts, BULK_TEXTS))
            started = time.perf_counter()
            client.rerank("a cat", documents, priority=priority, timeout_s=300)
            measured.append(BULK_TEXTS / (time.perf_counter() - started))
            began.set()
    rates.put(measured[1:] or measured)
