"""Why a setting was chosen, in words, from the measured ratios."""

from __future__ import annotations

from collections.abc import Sequence

from lychee_loadtest.tune.choice import Bounds, Gain, Point, compare

__all__ = ["describe_choice", "explain_batch", "explain_other"]


def explain_batch(points: Sequence[Point], chosen: Point, limits: Bounds) -> str:
    """Say what the chosen batch gains over the smallest, and what the next larger one would add.

    Args:
        points: The points that were measured, ascending in their rows.
        chosen: The point that was chosen.
        limits: The limits that the choice had to meet.

    Returns:
        Such as "8 is 1.9x the throughput of 1 at 1.3x the latency; 16 adds 2 %".
    """
    position = points.index(chosen)
    parts = []
    if position:
        first = points[0]
        gain, latency = compare(chosen, first).ratio, chosen.p50_ms / first.p50_ms
        parts.append(f"{chosen.rows} is {gain:.1f}x the throughput of {first.rows} at {latency:.1f}x the latency")
    else:
        parts.append(f"{chosen.rows} is enough")
    if position + 1 < len(points):
        larger = points[position + 1]
        parts.append(f"{larger.rows} {_describe_change(compare(larger, chosen))}")
    parts += [f"{point.rows} is out: {breach}" for point in points if (breach := limits.breach(point)) is not None]
    return "; ".join(parts)


def explain_other(points: Sequence[Point], chosen: Point, limits: Bounds) -> str:
    """Say what the alternatives would have changed, each in a few words."""
    parts = []
    for point in points:
        if point is chosen:
            continue
        breach = limits.breach(point)
        change = f"is out: {breach}" if breach is not None else _describe_change(compare(point, chosen))
        parts.append(f"{point.name} {change}")
    return "; ".join(parts) or "nothing else to try on this machine"


def describe_choice(point: Point) -> str:
    """Return throughput and latencies of a point."""
    return f"{point.throughput:.1f} rows/s, p50 {point.p50_ms:.1f} ms, p99 {point.p99_ms:.1f} ms"


def _describe_change(gain: Gain) -> str:
    percent = round(100 * (gain.ratio - 1))
    if percent == 0:
        return "adds nothing"
    change = f"adds {percent} %" if percent > 0 else f"loses {-percent} %"
    return f"{change}, within the noise" if gain.is_noise else change
