"""Latencies as a histogram: small, exact to one per cent, and processes can add theirs up."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Final

__all__ = ["Latencies"]

_LOG_WIDTH: Final = math.log(1.01)
_LEAST_MS: Final = 0.001


class Latencies:
    """Counts latencies in classes that are one per cent wide."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self.max_ms: float | None = None

    def __len__(self) -> int:
        return self._counts.total()

    def add(self, latency_ms: float) -> None:
        """Count one; below a microsecond they are all the same."""
        self._counts[math.ceil(math.log(max(latency_ms, _LEAST_MS)) / _LOG_WIDTH)] += 1
        self.max_ms = max(latency_ms, self.max_ms or 0.0)

    def merge(self, other: Latencies) -> None:
        """Add those of another one."""
        self._counts.update(other._counts)
        if other.max_ms is not None:
            self.max_ms = max(other.max_ms, self.max_ms or 0.0)

    def percentile_ms(self, percent: float) -> float | None:
        """Return what so many per cent of the latencies do not exceed: at most 1 % too high; None without latencies."""
        if self.max_ms is None:
            return None
        rank = max(1, math.ceil(percent / 100 * len(self)))
        for place, count in sorted(self._counts.items()):
            rank -= count
            if rank <= 0:
                return min(math.exp(place * _LOG_WIDTH), self.max_ms)
        return self.max_ms

    def pack(self) -> tuple[list[tuple[int, int]], float | None]:
        """Return what another process needs to merge this; see `unpack`."""
        return list(self._counts.items()), self.max_ms

    @classmethod
    def unpack(cls, counts: Iterable[tuple[int, int]], max_ms: float | None) -> Latencies:
        """Make one from what `pack` returned."""
        latencies = cls()
        latencies._counts.update(dict(counts))
        latencies.max_ms = max_ms
        return latencies
