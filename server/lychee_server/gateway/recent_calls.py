"""What happened lately: rate, latency and queue of the last quarter of an hour, in bounded memory."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

SLOT_S: Final = 5
SLOTS: Final = 180  # a quarter of an hour
RATE_S: Final = 60
# Latencies are counted by their logarithm, in steps of 2 %: so few numbers hold any number of calls, and percentiles of
# several slots are those of all their calls.
STEP: Final = math.log(1.02)
LEAST_S: Final = 1e-4


@dataclass(slots=True)
class _Slot:
    number: int
    calls: int = 0
    documents: int = 0
    waiting: int = 0
    running: int = 0
    latencies: Counter[int] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class RecentSummary:
    """The last minute.

    Attributes:
        calls_per_s: How many calls ended per second.
        documents_per_s: How many documents there were per second.
        p50_ms: The median latency, to within 1 %; None without calls.
        p99_ms: The 99th percentile of the same latencies.
    """

    calls_per_s: float
    documents_per_s: float
    p50_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class RecentSeries:
    """The last quarter of an hour in steps, oldest first; the step that has just begun is left out.

    Attributes:
        step_s: How many seconds a value stands for.
        calls_per_s: How many calls ended per second; None before the gateway was there.
        documents_per_s: How many documents there were per second; None likewise.
        p50_ms: The median latency; None where no call ended.
        p99_ms: The 99th percentile; None likewise.
        running: The most calls that were computed at the same time; None before the gateway was there.
        waiting: The most calls that waited for a slot; None likewise.
    """

    step_s: int
    calls_per_s: tuple[float | None, ...]
    documents_per_s: tuple[float | None, ...]
    p50_ms: tuple[float | None, ...]
    p99_ms: tuple[float | None, ...]
    running: tuple[int | None, ...]
    waiting: tuple[int | None, ...]


class RecentCalls:
    """Remember the last calls; safe to use from several threads.

    Args:
        clock: Tells the seconds; for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began_at_s = clock()
        self._slots: deque[_Slot] = deque(maxlen=SLOTS + 1)
        self._lock = threading.Lock()

    def add(self, latency_s: float) -> None:
        """Count a call that has ended."""
        with self._lock:
            slot = self._current()
            slot.calls += 1
            slot.latencies[round(math.log(max(latency_s, LEAST_S)) / STEP)] += 1

    def add_documents(self, count: int) -> None:
        """Count documents."""
        with self._lock:
            self._current().documents += count

    def note_queue(self, running: int, waiting: int) -> None:
        """Note how many calls run and wait at this moment."""
        with self._lock:
            slot = self._current()
            slot.running, slot.waiting = max(slot.running, running), max(slot.waiting, waiting)

    def summary(self) -> RecentSummary:
        """Return the rates and percentiles of the last minute."""
        with self._lock:
            now_s = self._clock()
            first = int(now_s - RATE_S) // SLOT_S + 1
            slots = [slot for slot in self._slots if slot.number >= first]
            latencies = sum((slot.latencies for slot in slots), Counter())
        window_s = max(1.0, now_s - max(first * SLOT_S, self._began_at_s))
        return RecentSummary(
            sum(slot.calls for slot in slots) / window_s,
            sum(slot.documents for slot in slots) / window_s,
            _percentile_ms(latencies, 0.5),
            _percentile_ms(latencies, 0.99),
        )

    def series(self) -> RecentSeries:
        """Return what happened in each step."""
        with self._lock:
            end = int(self._clock()) // SLOT_S
            first = max(end - SLOTS, int(self._began_at_s) // SLOT_S)
            known = {slot.number: slot for slot in self._slots}
            slots = [known.get(number, _Slot(number)) for number in range(first, end)]
            before: list[None] = [None] * (SLOTS - len(slots))
            return RecentSeries(
                SLOT_S,
                (*before, *(slot.calls / SLOT_S for slot in slots)),
                (*before, *(slot.documents / SLOT_S for slot in slots)),
                (*before, *(_percentile_ms(slot.latencies, 0.5) for slot in slots)),
                (*before, *(_percentile_ms(slot.latencies, 0.99) for slot in slots)),
                (*before, *(slot.running for slot in slots)),
                (*before, *(slot.waiting for slot in slots)),
            )

    def _current(self) -> _Slot:
        number = int(self._clock()) // SLOT_S
        if not self._slots or self._slots[-1].number != number:
            self._slots.append(_Slot(number))
        return self._slots[-1]


def _percentile_ms(latencies: Counter[int], share: float) -> float | None:
    """Return the latency that this share of the calls did not exceed."""
    left = math.ceil(share * latencies.total())
    for step, count in sorted(latencies.items()):
        left -= count
        if left <= 0:
            return float(f"{1e3 * math.exp(step * STEP):.3g}")
    return None
