"""The simulator beside one real replica: the same calls at the same times, measured and simulated.

    python -m lychee_loadtest.autoscaling.reality

Right before each rate the service times are measured as `lychee tune` does it, so that both sides know one machine.
"""

from __future__ import annotations

import argparse
import re
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from lychee_server.triton import TritonServer
from tritonclient.grpc import InferenceServerClient

from lychee_loadtest.autoscaling.autoscaler import KUBERNETES
from lychee_loadtest.autoscaling.demand import Calls
from lychee_loadtest.autoscaling.service import ServiceTimes
from lychee_loadtest.autoscaling.simulation import Cluster, Policy, simulate
from lychee_loadtest.folders import REPOSITORY
from lychee_loadtest.machine import describe_machine
from lychee_loadtest.tune.load import Stream, make_requests, run_load
from lychee_loadtest.tune.workloads import Subject, read_subject

RATES: Final = (0.3, 0.5, 0.7)  # of what the replica can do
SIZES: Final = (1, 2, 4, 8, 16, 32)
SIZE_WINDOW_S: Final = 2.0
MOST_DOCUMENTS: Final = 20
MODEL: Final = "text_encoder"
CLOSE_S: Final = 60.0


def main() -> None:
    """Start a Triton, and compare at a few rates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repository", type=Path, default=REPOSITORY)
    parser.add_argument("--seconds", type=float, default=30.0, help="of calls at each rate")
    options = parser.parse_args()
    subject = read_subject(options.repository, "text")
    if subject is None:
        raise SystemExit(f"{options.repository} has no {MODEL}; expected what `lychee export` wrote")
    print(describe_machine())
    print("rate  calls/s   p50 ms: real, simulated   p99 ms: real, simulated   queue ms: real, simulated")
    with TritonServer(options.repository, http_port=0, grpc_port=0, metrics_port=0) as server:
        for number, rate in enumerate(RATES):
            with InferenceServerClient(server.grpc_url) as client:
                _compare(client, server.metrics_url, subject, rate, options.seconds, number)


def _compare(
    client: InferenceServerClient, metrics_url: str, subject: Subject, rate: float, seconds: float, seed: int
) -> None:
    service = _measure_service(client, subject)
    calls_per_s = rate * service.rows_per_s / ((1 + MOST_DOCUMENTS) / 2)
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.exponential(1 / calls_per_s, round(calls_per_s * seconds)))
    calls = Calls(times, rng.integers(1, MOST_DOCUMENTS + 1, len(times)), np.zeros(len(times), np.bool_))
    before = _read_queue(metrics_url)
    real = _send(client, subject, calls)
    after = _read_queue(metrics_url)
    queue_ms = (after[0] - before[0]) / (after[1] - before[1]) / 1e3
    run = simulate(calls, service, Cluster(1, 1, queue_limit=len(times)), Policy("", (), KUBERNETES), seed)
    columns = [
        f"{1e3 * np.quantile(real, share):10.0f}, {1e3 * np.quantile(run.latencies_s, share):6.0f}"
        for share in (0.5, 0.99)
    ]
    waits = f"{queue_ms:14.0f}, {1e3 * run.queue_s.mean():.0f}"
    print(f"{rate:4.0%}  {calls_per_s:7.1f}  {'         '.join(columns)}  {waits}")


def _measure_service(client: InferenceServerClient, subject: Subject) -> ServiceTimes:
    workload = subject.workloads[0]
    seconds, sigma = [], 0.0
    for rows in SIZES:
        stream = Stream(workload, rows, 2)
        load = [(stream, make_requests(subject.config, stream, rows))]
        run_load(client, MODEL, load, 0)  # the first call of a shape is slow
        sample = run_load(client, MODEL, load, SIZE_WINDOW_S)
        seconds.append(rows / sample.rows_per_s)
        sigma = max(sigma, float(np.log(sample.latencies_ms).std()))
    return ServiceTimes(f"{MODEL}, {workload.name}", SIZES, tuple(seconds), sigma)


def _send(client: InferenceServerClient, subject: Subject, calls: Calls) -> npt.NDArray[np.float64]:
    """Send every call at its time, whatever became of the others; return the seconds from that time to the answer."""
    workload = subject.workloads[0]
    requests = {
        rows: make_requests(subject.config, Stream(workload, rows, 1), rows)[0] for rows in range(1, MOST_DOCUMENTS + 1)
    }
    latencies, left, done = np.zeros(len(calls.times_s)), [len(calls.times_s)], threading.Condition()

    def note(number: int, due_s: float, error: Any) -> None:
        latencies[number] = time.perf_counter() - due_s if error is None else np.inf
        with done:
            left[0] -= 1
            done.notify()

    begun_s = time.perf_counter()
    for number, (time_s, rows) in enumerate(zip(calls.times_s.tolist(), calls.documents.tolist(), strict=True)):
        due_s = begun_s + time_s
        time.sleep(max(0.0, due_s - time.perf_counter()))
        client.async_infer(
            MODEL, requests[rows], lambda result, error, number=number, due_s=due_s: note(number, due_s, error)
        )
    with done:
        done.wait_for(lambda: not left[0], CLOSE_S)
    return latencies


def _read_queue(metrics_url: str) -> tuple[float, float]:
    """Return microseconds in the queue, and requests, since the start."""
    with urllib.request.urlopen(metrics_url) as answer:
        text = answer.read().decode()
    return _sum(text, "nv_inference_queue_duration_us"), _sum(text, "nv_inference_request_success")


def _sum(text: str, name: str) -> float:
    return sum(
        float(value) for value in re.findall(rf'^{name}{{[^}}]*model="{MODEL}"[^}}]*}} (\S+)$', text, re.MULTILINE)
    )


if __name__ == "__main__":
    main()
