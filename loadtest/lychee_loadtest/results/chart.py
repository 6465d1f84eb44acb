"""A load test as one picture: latency against throughput, and both over time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lychee_loadtest.charts import COLORS, MARKERS, new_chart, save_chart
from lychee_loadtest.results.results import CallStatistics, LoadTestResults, Period

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_results"]

_P50_STYLE: Final = "-"
_P99_STYLE: Final = "--"
_WINDOW_ALPHA: Final = 0.3


def draw_results(results: LoadTestResults, path: Path) -> None:
    """Draw the picture: one colour for each lane, full lines for p50, broken ones for p99.

    Args:
        results: The results of a run with at least one call.
        path: The PNG file to write; its folder exists.

    Raises:
        ConfigurationError: The file cannot be written.
    """
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    lanes = _lanes(results)
    figure, (curve, latencies, rates, load) = new_chart(_title(results), panels=4)
    for lane, color, marker in zip(lanes, COLORS, MARKERS, strict=False):
        _draw_curve(curve, results, lane, color, marker)
        _draw_latencies(latencies, results, lane, color, marker)
        _draw_rate(rates, results, lane, color, marker)
    _draw_load(load, results, COLORS[-1], COLORS[-2])
    _label(curve, "Latency against throughput", "documents per second", "latency in ms")
    curve.set_xlim(left=0)
    for axes, title, unit in (
        (latencies, "Latency over time", "latency in ms"),
        (rates, "Throughput over time", "documents per second"),
        (load, "Load over time", _load_unit(results)),
    ):
        _label(axes, title, "seconds since the start", unit)
        axes.set_xlim(0, results.duration_s)
    for axes in (curve, latencies):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    for axes in (rates, load):
        axes.set_ylim(bottom=0)
    save_chart(figure, path)


def _draw_curve(axes: Axes, results: LoadTestResults, lane: str, color: str, marker: str) -> None:
    """Draw latency against throughput: a pale mark for each window, a line through the steps of the shape."""
    windows = [entry for _, entry in _entries(results.windows, lane)]
    steps = [entry for _, entry in _entries(results.steps, lane)]
    if not windows:  # all its calls ended after the users were told to stop
        return
    for measure, style in (("p50", _P50_STYLE), ("p99", _P99_STYLE)):
        filled = color if measure == "p50" else "none"
        axes.plot(
            [entry.documents_per_s for entry in windows],
            [_latency(entry, measure) for entry in windows],
            linestyle="",
            marker=marker,
            markersize=5,
            color=color,
            markerfacecolor=filled,
            alpha=_WINDOW_ALPHA,
        )
        axes.plot(
            [entry.documents_per_s for entry in steps],
            [_latency(entry, measure) for entry in steps],
            linestyle=style,
            marker=marker,
            markersize=9,
            color=color,
            markerfacecolor=filled,
            label=f"{lane}, {measure}",
        )


def _draw_latencies(axes: Axes, results: LoadTestResults, lane: str, color: str, marker: str) -> None:
    points = list(_entries(results.windows, lane))
    if not points:
        return
    for measure, style in (("p50", _P50_STYLE), ("p99", _P99_STYLE)):
        axes.plot(
            [_middle_s(period) for period, _ in points],
            [_latency(entry, measure) for _, entry in points],
            linestyle=style,
            marker=marker,
            markersize=4,
            color=color,
            label=f"{lane}, {measure}",
        )


def _draw_rate(axes: Axes, results: LoadTestResults, lane: str, color: str, marker: str) -> None:
    points = [(_middle_s(period), _find(period, lane)) for period in results.windows]
    rates = [0.0 if entry is None else entry.documents_per_s for _, entry in points]
    axes.plot([time for time, _ in points], rates, marker=marker, markersize=4, color=color, label=lane)


def _draw_load(axes: Axes, results: LoadTestResults, color: str, trouble_color: str) -> None:
    times = [_middle_s(period) for period in results.windows]
    load = [
        period.users if period.arrival_rate_per_s is None else period.arrival_rate_per_s for period in results.windows
    ]
    axes.plot(times, load, drawstyle="steps-mid", color=color, label=_load_unit(results))
    troubles = [sum(entry.failures + entry.overloads for entry in period.lanes) for period in results.windows]
    if any(troubles):
        width = 0.6 * results.windows[0].duration_s
        axes.bar(times, troubles, width=width, color=trouble_color, label="calls that failed or were refused")


def _load_unit(results: LoadTestResults) -> str:
    return "interactive calls arriving per second" if results.settings.get("arrival_rate") else "users"


def _label(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.legend(loc="best", fontsize="small")


def _entries(periods: Iterable[Period], lane: str) -> Iterable[tuple[Period, CallStatistics]]:
    """Yield the periods in which the lane had answers."""
    for period in periods:
        entry = _find(period, lane)
        if entry is not None and entry.calls:
            yield period, entry


def _find(period: Period, lane: str) -> CallStatistics | None:
    return next((entry for entry in period.lanes if entry.name == lane), None)


def _lanes(results: LoadTestResults) -> list[str]:
    """Return the lanes that had calls, in the order in which the windows name them."""
    return list(dict.fromkeys(entry.name for period in results.windows for entry in period.lanes))


def _latency(entry: CallStatistics, measure: str) -> float:
    value = entry.p50_ms if measure == "p50" else entry.p99_ms
    assert value is not None, "there are answers"
    return value


def _middle_s(period: Period) -> float:
    return period.start_s + period.duration_s / 2


def _title(results: LoadTestResults) -> str:
    settings, machine = results.settings, results.machine
    rate = settings.get("arrival_rate") or 0
    users = settings.get("users")
    model = f"open model, {rate} interactive calls per second" if rate else f"closed model, {users} users"
    return (
        f"Load test: {model}, shape {settings.get('shape')}, {results.duration_s:.0f} s\n"
        f"load generator on {machine.get('cpu')}, {machine.get('cores')} cores, {machine.get('date')}"
    )
