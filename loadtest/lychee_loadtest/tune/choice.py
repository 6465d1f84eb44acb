"""Which of several measured settings to take: pure rules, the same for batches, instances and queue delays.

Settings are measured in turn, round after round, so that each round compares all of them under the same conditions. One
setting beats another if it was faster in every round, and by at least MIN_GAIN in the median; the rest is noise. Of the
settings that the fastest one does not beat, the simplest is taken. For batches, the simplest is the smallest: the knee.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lychee_server.defaults import MIB
from lychee_server.errors import LycheeServerError

__all__ = ["MIN_GAIN", "Bounds", "Gain", "NoChoiceError", "Point", "choose", "compare"]

MIN_GAIN: Final = 0.05


class NoChoiceError(LycheeServerError):
    """No setting meets the limits."""


@dataclass(frozen=True, slots=True)
class Point:
    """What was measured of one setting.

    Attributes:
        name: The name of the setting, in words.
        rows: How many documents one request has; with several kinds of requests, one of the last kind.
        rows_per_s: How many rows per second were computed in each round.
        latencies_ms: The latencies of all requests of all rounds; with several kinds of requests, of the first kind.
        memory_bytes: The memory of the model's processes after warming up; 0 where it could not be read.
    """

    name: str
    rows: int
    rows_per_s: tuple[float, ...]
    latencies_ms: tuple[float, ...]
    memory_bytes: int = 0

    @property
    def throughput(self) -> float:
        """Rows per second, median of the rounds."""
        return statistics.median(self.rows_per_s)

    @property
    def spread(self) -> float:
        """How far the rounds lie apart, least to most, as a share of the median."""
        return (max(self.rows_per_s) - min(self.rows_per_s)) / self.throughput

    @property
    def p50_ms(self) -> float:
        """Median latency."""
        return statistics.median(self.latencies_ms)

    @property
    def p99_ms(self) -> float:
        """Latency that 99 % of the requests stay within; of fewer than 100 requests, the largest."""
        ordered = sorted(self.latencies_ms)
        return ordered[math.ceil(0.99 * len(ordered)) - 1]


@dataclass(frozen=True, slots=True)
class Gain:
    """How many times the throughput of one setting another one has: median, least and most over the rounds."""

    ratio: float
    lowest: float
    highest: float

    @property
    def is_real(self) -> bool:
        """Whether it is more than noise, and worth having."""
        return self.lowest > 1 and self.ratio >= 1 + MIN_GAIN

    @property
    def is_noise(self) -> bool:
        """Whether the rounds disagree about which one is faster."""
        return self.lowest <= 1 <= self.highest


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the user does not want exceeded; None: no limit."""

    latency_ms: float | None = None
    memory_bytes: int | None = None

    def breach(self, point: Point) -> str | None:
        """Return what of a point exceeds a limit, in words, or None."""
        if self.latency_ms is not None and point.p99_ms > self.latency_ms:
            return f"its p99 of {point.p99_ms:.0f} ms is above {self.latency_ms:g} ms"
        if self.memory_bytes is not None and point.memory_bytes > self.memory_bytes:
            return f"its {point.memory_bytes / MIB:.0f} MiB are above {self.memory_bytes / MIB:.0f} MiB"
        return None


def compare(point: Point, other: Point) -> Gain:
    """Compare the throughput of two points that were measured in the same rounds, round by round."""
    ratios = [one / two for one, two in zip(point.rows_per_s, other.rows_per_s, strict=False)]
    return Gain(statistics.median(ratios), min(ratios), max(ratios))


def choose(points: Sequence[Point], limits: Bounds) -> Point:
    """Return the first point, of those within the limits, that the fastest of them does not really beat.

    Args:
        points: The points to choose from, the simplest first.
        limits: Points that exceed one are not chosen.

    Raises:
        NoChoiceError: Every point exceeds a limit, or there is none.
    """
    allowed = [point for point in points if limits.breach(point) is None]
    if not allowed:
        reasons = "; ".join(f"{point.name}: {limits.breach(point)}" for point in points)
        raise NoChoiceError(
            f"No setting is within the limits ({reasons or 'none could be measured'}); raise the limit."
        )
    fastest = max(allowed, key=lambda point: point.throughput)
    return next(point for point in allowed if not compare(fastest, point).is_real)
