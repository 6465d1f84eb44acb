"""Closed loops of callers: how many documents per second, and how long a call takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .callers import Caller
from .documents import Call, Documents

__all__ = ["WORKLOADS", "LoopSample", "Workload", "busy_share", "draw_calls", "measure"]


@dataclass(frozen=True)
class Workload:
    """What callers ask for.

    Attributes:
        name: The name that it has in tables and JSON.
        kind: What the documents are, "texts" or "photos".
        documents: How many documents one call has.
        callers: How many callers there are; each sends its next call when it has the answer to the last.
    """

    name: str
    kind: str
    documents: int
    callers: int


WORKLOADS: Final = (
    Workload("1 query x 20 photos", "photos", 20, 1),
    Workload("1 query x 100 texts", "texts", 100, 1),
    Workload("16 callers, 1 query x 5 texts", "texts", 5, 16),
)


@dataclass(frozen=True)
class LoopSample:
    """What one loop measured.

    Attributes:
        documents_per_s: How many documents per second were ranked for all callers together.
        latencies_ms: How long each call took.
    """

    documents_per_s: float
    latencies_ms: tuple[float, ...]


def draw_calls(documents: Documents, workload: Workload, documents_per_s: float, seconds: float) -> list[Call]:
    """Draw enough calls for a loop at up to 1.5 times that rate, so that none is made while time is taken."""
    count = workload.callers + int(1.5 * seconds * documents_per_s / workload.documents) + 1
    return [documents.call(workload.kind, workload.documents) for _ in range(count)]


def measure(caller: Caller, calls: Sequence[Call], callers: int, seconds: float) -> LoopSample:
    """Send calls until the time is up or all are sent; those under way are finished and count.

    Every caller sends one at least, if there are so many.

    Raises:
        RuntimeError: A call failed.
    """
    waiting = iter(calls)
    lock = threading.Lock()
    latencies_ms: list[float] = []
    ranked = 0
    started = time.perf_counter()

    def run() -> None:
        nonlocal ranked
        while True:
            with lock:
                call = next(waiting, None)
            if call is None:
                return
            sent = time.perf_counter()
            scores = caller.rank(call)
            took_ms = 1e3 * (time.perf_counter() - sent)
            with lock:
                latencies_ms.append(took_ms)
                ranked += len(scores)
            if time.perf_counter() - started >= seconds:
                return

    with ThreadPoolExecutor(callers) as pool:
        for future in [pool.submit(run) for _ in range(callers)]:
            future.result()
    return LoopSample(ranked / (time.perf_counter() - started), tuple(latencies_ms))


def busy_share(seconds: float) -> float:
    """Return which share of the machine's cores was at work in the next seconds, while this process waits."""
    before = _read_ticks()
    time.sleep(seconds)
    busy, total = (after - earlier for after, earlier in zip(_read_ticks(), before, strict=True))
    return busy / max(1, total)


def _read_ticks() -> tuple[int, int]:
    """Return the busy and all ticks of the machine since it was started."""
    fields = [int(field) for field in Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return sum(fields) - idle, sum(fields)
