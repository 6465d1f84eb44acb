"""Closed-loop load: a fixed number of requests in flight, each replaced when its answer comes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import np_to_triton_dtype

from lychee_loadtest.tune.workloads import Workload, make_inputs

__all__ = ["LoadSample", "Stream", "make_requests", "run_load"]

Request: TypeAlias = list[Any]
DIFFERENT_REQUESTS: Final = 4  # no cache knows them, so these few serve for all
CALL_TIMEOUT_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Stream:
    """Requests of one kind: their shape, their rows, and how many are in flight."""

    workload: Workload
    rows: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class LoadSample:
    """What one window of load gave: rows per second of all streams, latencies of the first stream's requests."""

    rows_per_s: float
    latencies_ms: tuple[float, ...]


def make_requests(config: Any, stream: Stream, seed: int) -> tuple[Request, ...]:
    """Make up a stream's requests, all different."""
    rng = np.random.default_rng(seed)
    requests = []
    for _ in range(DIFFERENT_REQUESTS):
        request = []
        for name, array in make_inputs(config, stream.workload, stream.rows, rng).items():
            tensor = InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(array)
            request.append(tensor)
        requests.append(request)
    return tuple(requests)


def run_load(
    client: InferenceServerClient,
    model: str,
    streams: Sequence[tuple[Stream, Sequence[Request]]],
    window_s: float,
) -> LoadSample:
    """Keep every stream's requests in flight until the time is up; each caller finishes what it began.

    Raises:
        InferenceServerException: A request failed.
    """
    started = time.perf_counter()

    def call_in_turn(stream: Stream, requests: Sequence[Request], first: int) -> list[tuple[float, int, float]]:
        calls = []
        for number in itertools.count(first):
            begun = time.perf_counter()
            client.infer(model, requests[number % len(requests)], client_timeout=CALL_TIMEOUT_S)
            ended = time.perf_counter()
            calls.append((ended, stream.rows, 1e3 * (ended - begun)))
            if ended - started >= window_s:
                break
        return calls

    with ThreadPoolExecutor(sum(stream.in_flight for stream, _ in streams)) as pool:
        callers = [
            [pool.submit(call_in_turn, stream, requests, first) for first in range(stream.in_flight)]
            for stream, requests in streams
        ]
        calls = [[call for caller in stream_callers for call in caller.result()] for stream_callers in callers]
    everything = [call for stream_calls in calls for call in stream_calls]
    elapsed_s = max(ended for ended, *_ in everything) - started
    rows = sum(count for _, count, _ in everything)
    return LoadSample(rows / elapsed_s, tuple(latency_ms for *_, latency_ms in calls[0]))
