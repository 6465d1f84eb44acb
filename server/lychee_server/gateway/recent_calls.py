"""What happened lately: rates of the last minute and the latency of the last calls, in bounded memory."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

WINDOW_S: Final = 60
LATENCIES: Final = 1000


@dataclass(slots=True)
class _Second:
    number: int
    calls: int = 0
    documents: int = 0


@dataclass(frozen=True, slots=True)
class RecentSummary:
    """The last minute and the last calls.

    Attributes:
        calls_per_s: How many calls there were per second in the last minute.
        documents_per_s: How many documents there were per second in the last minute.
        p50_ms: The median latency of the last thousand calls; None before the first.
        p99_ms: The 99th percentile of the same latencies; None before the first call.
    """

    calls_per_s: float
    documents_per_s: float
    p50_ms: float | None
    p99_ms: float | None


class RecentCalls:
    """Remember the last calls; safe to use from several threads.

    Args:
        clock: Tells the seconds; for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began_at_s = clock()
        self._seconds: deque[_Second] = deque(maxlen=WINDOW_S)
        self._latencies_s: deque[float] = deque(maxlen=LATENCIES)
        self._lock = threading.Lock()

    def add(self, latency_s: float) -> None:
        """Count a call."""
        with self._lock:
            self._latencies_s.append(latency_s)
            self._current().calls += 1

    def add_documents(self, count: int) -> None:
        """Count documents."""
        with self._lock:
            self._current().documents += count

    def summary(self) -> RecentSummary:
        """Return the rates and percentiles of now."""
        with self._lock:
            now_s = self._clock()
            recent = [second for second in self._seconds if second.number > int(now_s) - WINDOW_S]
            calls = sum(second.calls for second in recent)
            documents = sum(second.documents for second in recent)
            latencies_s = list(self._latencies_s)
        window_s = min(WINDOW_S, max(1.0, now_s - self._began_at_s))
        p50_ms, p99_ms = (1e3 * np.percentile(latencies_s, (50, 99))).tolist() if latencies_s else (None, None)
        return RecentSummary(calls / window_s, documents / window_s, p50_ms, p99_ms)

    def _current(self) -> _Second:
        number = int(self._clock())
        if not self._seconds or self._seconds[-1].number != number:
            self._seconds.append(_Second(number))
        return self._seconds[-1]
