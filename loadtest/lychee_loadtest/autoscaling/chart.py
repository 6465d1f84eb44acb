"""The comparison as a picture: latency against cost, and a day of the chosen policy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from lychee_loadtest.autoscaling.comparison import Case, Figures, Scenario, play
from lychee_loadtest.autoscaling.demand import level_by_second
from lychee_loadtest.charts import COLORS, MARKERS, new_chart, save_chart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_comparison"]

HOUR_S: Final = 3600
MOST_DAYS: Final = 2


def draw_comparison(
    scenario: Scenario, found: Sequence[tuple[Case, Figures]], shown: Sequence[Case], path: Path
) -> None:
    """Draw all cases, and the first day of the first two of `shown`, which are played again for it.

    Raises:
        ConfigurationError: The file cannot be written.
    """
    title = f"{scenario.service.name}: {scenario.service.where}\nsimulated day, medians of {scenario.seeds}"
    figure, (costs, day) = new_chart(title, panels=2)
    _draw_costs(costs, found)
    _draw_day(day, scenario, shown[:MOST_DAYS])
    save_chart(figure, path)


def _draw_costs(axes: Axes, found: Sequence[tuple[Case, Figures]]) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    ordered = sorted(found, key=lambda pair: pair[1].cost)
    for number, ((case, figures), color) in enumerate(zip(ordered, COLORS * len(found), strict=False)):
        heights = (figures.p99_ms, figures.calm_p99_ms)
        axes.plot([figures.cost] * 2, heights, color=color, alpha=0.4)
        axes.plot(figures.cost, heights[0], MARKERS[0], color=color)
        axes.plot(figures.cost, heights[1], MARKERS[0], color=color, markerfacecolor="white")
        place = (figures.cost, heights[0] if math.isfinite(heights[0]) else heights[1])  # refused: nothing to draw
        offset = (6, -11) if number % 2 else (6, 4)  # neighbours do not write over each other
        axes.annotate(case.policy.name, place, xytext=offset, textcoords="offset points", fontsize=8)
    axes.set_title("p99 of all calls (full) and outside of spikes (open)")
    axes.set_xlabel("cost of a million pairs")
    axes.set_ylabel("ms")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.15)


def _draw_day(axes: Axes, scenario: Scenario, shown: Sequence[Case]) -> None:
    level, factors = level_by_second(scenario.day, np.random.default_rng(0))
    hours = np.arange(len(level)) / HOUR_S
    axes.fill_between(hours, level * factors, color=COLORS[-1], alpha=0.2, linewidth=0, label="load, in busy replicas")
    for case, color in zip(shown, COLORS, strict=False):
        _, run = play(scenario, case, 0)
        times = [*(time_s / HOUR_S for time_s, _ in run.counts), hours[-1]]
        counts = [*(count for _, count in run.counts), run.counts[-1][1]]
        axes.step(times, counts, where="post", color=color, label=f"replicas, {case.policy.name}")
    axes.set_title("One of the days")
    axes.set_xlabel("hour")
    axes.set_ylabel("replicas")
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper center")
