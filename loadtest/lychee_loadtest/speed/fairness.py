"""Measure a one-text call beside greedy callers; print a table, write JSON, fail if a target is missed.

Starts Triton and a gateway of its own on free ports. Before each load the call is measured alone, so that what else
the machine does weighs on both alike. Every call has a connection and a text of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from lychee_server.defaults import MIB

from lychee_loadtest.folders import RESULTS, write_record
from lychee_loadtest.machine import describe_machine
from lychee_loadtest.memory.process_memory import read_process, reset_peak
from lychee_loadtest.payloads import fresh_queries, fresh_texts
from lychee_loadtest.quantile import quantile
from lychee_loadtest.speed.gateway_bench import Gateway, run_gateway
from lychee_loadtest.speed.greedy_loads import LOADS, Load, post, run_caller

PAUSE_S = 0.01
SETTLE_S = 2.0
WARM_UP_S = 5.0
MAX_RATIO = 3.0
MAX_RSS_MIB = 900.0
OK = 200


@dataclass(frozen=True)
class Beside:
    """What a one-text call saw beside one load. Latencies in milliseconds; failures count too.

    Attributes:
        load: The name of the load.
        p50_ms: The median beside it.
        p99_ms: The 99th percentile beside it.
        alone_ms: The 99th percentile alone, just before.
        failed: How many calls got another status than 200, or none.
        calls: How many calls were made.
        peak_mib: The most resident memory of the gateway.
    """

    load: str
    p50_ms: float
    p99_ms: float
    alone_ms: float
    failed: int
    calls: int
    peak_mib: float

    @property
    def ratio(self) -> float:
        """How many times as long as alone."""
        return self.p99_ms / self.alone_ms

    @property
    def met(self) -> bool:
        """Whether the targets are met."""
        return self.ratio <= MAX_RATIO and not self.failed and self.peak_mib <= MAX_RSS_MIB


class Caller:
    """Sends one new text after the other."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._queries = fresh_queries()
        self._texts = fresh_texts()

    def run(self, seconds: float) -> tuple[list[float], int]:
        """Call for so long; return the latencies in milliseconds, and how many calls failed."""
        latencies_ms, failed = [], 0
        ends_at_s = time.monotonic() + seconds
        while time.monotonic() < ends_at_s:
            body = json.dumps({"query": next(self._queries), "documents": [next(self._texts)]}).encode()
            began_s = time.perf_counter()
            status = 0
            with contextlib.suppress(OSError, http.client.HTTPException):
                status = post(self._url, body)
            latencies_ms.append(1e3 * (time.perf_counter() - began_s))
            failed += status != OK
            time.sleep(PAUSE_S)
        return latencies_ms, failed


def measure(gateway: Gateway, load: Load, seconds: float) -> Beside:
    """Measure alone, then beside the load."""
    caller, job = Caller(gateway.url), load.make()
    caller.run(WARM_UP_S)
    alone_ms, _ = caller.run(seconds / 2)
    reset_peak(gateway.pid)
    processes = multiprocessing.get_context("fork")  # of their own, so that they do not hold up this one
    ending = processes.Event()
    greedy = [processes.Process(target=run_caller, args=(job, gateway.url, ending)) for _ in range(load.callers)]
    for process in greedy:
        process.start()
    try:
        time.sleep(SETTLE_S)
        beside_ms, failed = caller.run(seconds)
    finally:
        ending.set()
        for process in greedy:
            process.join()
    peak_mib = read_process(gateway.pid).peak_bytes / MIB
    return Beside(
        load.name,
        quantile(beside_ms, 0.5),
        quantile(beside_ms, 0.99),
        quantile(alone_ms, 0.99),
        failed,
        len(beside_ms),
        peak_mib,
    )


def measure_all(chosen: list[int], seconds: float) -> Iterator[Beside]:
    """Measure the loads with these numbers, and print each line as soon as it is known."""
    print(f"{'beside':42} {'p50':>8} {'p99':>9} {'alone p99':>9} {'times':>6} {'failed':>8} {'peak RSS':>9}")
    with run_gateway() as gateway:
        for number in chosen:
            line = measure(gateway, LOADS[number], seconds)
            print(
                f"{line.load:42} {line.p50_ms:5.0f} ms {line.p99_ms:6.0f} ms {line.alone_ms:6.0f} ms {line.ratio:6.1f} "
                f"{line.failed:3}/{line.calls:<4} {line.peak_mib:5.0f} MiB  {'met' if line.met else 'MISSED'}",
                flush=True,
            )
            yield line


def main() -> int:
    """Print the table, write the JSON file, and return 1 if a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="beside each load")
    parser.add_argument("--loads", type=int, nargs="*", default=list(range(len(LOADS))), help="their numbers, from 0")
    parser.add_argument("--output", type=Path, default=RESULTS / "fairness.json")
    arguments = parser.parse_args()
    machine = describe_machine()
    print(f"{machine['cpu']}, {machine['cores']} cores, {machine['date']}; callers, gateway and Triton share them")
    lines = list(measure_all(arguments.loads, arguments.seconds))
    content = {"machine": machine, "measurements": [asdict(line) | {"met": line.met} for line in lines]}
    write_record(arguments.output, content)
    return 0 if all(line.met for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
