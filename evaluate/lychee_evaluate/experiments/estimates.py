"""Estimates of what calls have, with their intervals, and percentiles."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

LATENCY_QUANTILES: Final = (50, 99)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean or a share, and the ends of its confidence interval; None where there are too few calls for one."""

    value: float
    low: float | None
    high: float | None


def share_of(count: float, total: int, alpha: float) -> Estimate | None:
    """Return a share with Wilson's interval; None without anything to count."""
    from scipy import stats

    if not total:
        return None
    interval = stats.binomtest(int(count), total).proportion_ci(1 - alpha, method="wilson")
    return Estimate(count / total, float(interval.low), float(interval.high))


def ratio_of(
    amounts: Sequence[float],
    sizes: Sequence[float] | None,
    alpha: float,
    transform: Callable[[float], float] = float,
) -> Estimate | None:
    """Return the sum of amounts over the sum of sizes, with the t interval of a ratio of what calls have.

    Args:
        amounts: One of each call.
        sizes: Likewise; None: 1 of each, and the ratio is a mean.
        alpha: 1 minus the confidence of the interval.
        transform: What value and ends are told as.
    """
    from scipy import stats

    if not amounts:
        return None
    above = np.asarray(amounts, np.float64)
    below = np.ones_like(above) if sizes is None else np.asarray(sizes, np.float64)
    value, count = float(above.sum() / below.sum()), len(above)
    if count < 2:
        return Estimate(transform(value), None, None)
    deviation = float(np.std(above - value * below, ddof=1))
    if deviation == 0:  # nothing varied, which says little about what may
        return Estimate(transform(value), None, None)
    margin = float(stats.t.ppf(1 - alpha / 2, count - 1)) * deviation * math.sqrt(count) / float(below.sum())
    return Estimate(transform(value), transform(value - margin), transform(value + margin))


def quantiles_of(
    values: Sequence[float] | npt.NDArray[np.float64], percents: Sequence[int]
) -> tuple[float, ...] | None:
    """Return these percentiles, interpolated; None without values."""
    return tuple(float(each) for each in np.percentile(values, percents)) if len(values) else None
