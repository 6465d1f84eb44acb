"""A least-squares line through a few measured points, and how far off it may be elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Line", "fit_line"]

_CONFIDENCE: Final = 0.95


@dataclass(frozen=True)
class Line:
    """y = intercept + slope * x.

    Attributes:
        intercept: The value of y at x = 0.
        slope: How much y grows per unit of x.
        points: How many points it rests on.
        mean_x: The mean of the points' x.
        spread_x: The sum of the squared distances of the points' x from their mean.
        residual: The standard deviation of the points around the line; 0 with fewer than three, which fit exactly.
    """

    intercept: float
    slope: float
    points: int
    mean_x: float
    spread_x: float
    residual: float

    def at(self, x: float) -> float:
        """Return y."""
        return self.intercept + self.slope * x

    def error_at(self, x: float) -> float:
        """Return half the width of the 95 % prediction interval for one more measurement at x."""
        if self.points < 3 or not self.spread_x:
            return 0.0
        from scipy import stats  # slow to import, and most commands that import this module draw no line

        t = float(stats.t.ppf((1 + _CONFIDENCE) / 2, self.points - 2))
        return t * self.residual * math.sqrt(1 + 1 / self.points + (x - self.mean_x) ** 2 / self.spread_x)


def fit_line(xs: Sequence[float], ys: Sequence[float]) -> Line:
    """Fit a line; through one point it is level.

    Args:
        xs: The x of each point; there is at least one.
        ys: The y of each point.
    """
    count = len(xs)
    mean_x, mean_y = sum(xs) / count, sum(ys) / count
    spread = sum((x - mean_x) ** 2 for x in xs)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread if spread else 0.0
    intercept = mean_y - slope * mean_x
    squares = sum((y - intercept - slope * x) ** 2 for x, y in zip(xs, ys, strict=True))
    residual = math.sqrt(squares / (count - 2)) if count > 2 else 0.0
    return Line(intercept, slope, count, mean_x, spread, residual)
