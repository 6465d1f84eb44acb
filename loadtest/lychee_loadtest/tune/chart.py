"""The curves as a picture: throughput and latency over batch sizes, one row of panels per model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lychee_loadtest.charts import COLORS, MARKERS, new_chart, save_chart
from lychee_loadtest.tune.study import Curve, Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_studies"]


def draw_studies(studies: Sequence[Study], machine: Mapping[str, Any], model_id: str, path: Path) -> None:
    """Draw all curves, and write them as PNG.

    Raises:
        ConfigurationError: The file cannot be written.
    """
    title = f"{model_id}: {machine['cpu']}, {machine['cores']} cores, {machine['date']}"
    figure, axes = new_chart(title, panels=2 * len(studies))
    for study, throughput, latency in zip(studies, axes[::2], axes[1::2], strict=True):
        _draw_throughput(throughput, study)
        _draw_latency(latency, study)
    save_chart(figure, path)


def _draw_throughput(axes: Axes, study: Study) -> None:
    for curve, color, marker in zip(study.curves, COLORS, MARKERS, strict=False):
        rows = [point.rows for point in curve.points]
        axes.plot(rows, [point.throughput for point in curve.points], color=color, marker=marker, label=_label(curve))
        lowest = [min(point.rows_per_s) for point in curve.points]
        highest = [max(point.rows_per_s) for point in curve.points]
        axes.fill_between(rows, lowest, highest, color=color, alpha=0.15, linewidth=0)
        _mark(axes, curve, curve.chosen.throughput, color)
    axes.set_title(f"{study.subject.name}: throughput (band: least and most of the rounds)")
    axes.set_ylabel("rows per second")
    axes.set_ylim(bottom=0)
    _finish(axes, study)


def _draw_latency(axes: Axes, study: Study) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    for curve, color, marker in zip(study.curves, COLORS, MARKERS, strict=False):
        rows = [point.rows for point in curve.points]
        axes.plot(
            rows, [point.p50_ms for point in curve.points], color=color, marker=marker, label=f"{_label(curve)}, p50"
        )
        axes.plot(
            rows,
            [point.p99_ms for point in curve.points],
            color=color,
            marker=marker,
            markerfacecolor="white",
            linestyle="--",
            label=f"{_label(curve)}, p99",
        )
        _mark(axes, curve, curve.chosen.p50_ms, color)
    axes.set_title(f"{study.subject.name}: latency with two requests in flight")
    axes.set_ylabel("ms")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    _finish(axes, study)


def _mark(axes: Axes, curve: Curve, height: float, color: str) -> None:
    axes.plot(curve.chosen.rows, height, "o", markersize=18, markerfacecolor="none", markeredgecolor=color)


def _label(curve: Curve) -> str:
    return curve.workload.name


def _finish(axes: Axes, study: Study) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    sizes = sorted({point.rows for curve in study.curves for point in curve.points})
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("batch size (ring: chosen)")
    axes.legend(loc="best")
