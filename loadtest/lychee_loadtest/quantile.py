"""Quantiles of measured values."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

__all__ = ["quantile"]


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which so large a share of the values lies, interpolated.

    Args:
        values: The measured values, in any order.
        share: A multiple of 0.001, between 0 and 1.

    Raises:
        ValueError: There are no values.
    """
    if not values:
        raise ValueError("no call was measured; expected at least one")
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=1000, method="inclusive")[round(1000 * share) - 1]
