"""A calibration as one picture: what each threshold gives, and where the labelled pairs' scores lie."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

import numpy as np
from lychee_client.calibration import Calibration
from lychee_client.score_mapping import Array

from lychee_evaluate.calibration.threshold_search import WeightedCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH_PX: Final = 1200
HEIGHT_PX: Final = 800
DPI: Final = 100
BINS: Final = 25
FONT_SIZE: Final = 11
# Okabe and Ito's palette, which every kind of colour vision tells apart; lines and bars differ in pattern as well.
BLUE: Final = "#0072B2"
ORANGE: Final = "#D55E00"
GREEN: Final = "#009E73"
BLACK: Final = "#000000"
GREY: Final = "#DDDDDD"


def draw_calibration(calibration: Calibration, scores: Array, labels: Array, average_precision: float) -> bytes:
    """Draw precision against recall, both over thresholds, and the score histograms of both classes.

    The threshold is a line, its confidence interval a band. Labels are in English and ASCII, which every font has.

    Args:
        calibration: The calibration that was made from these pairs.
        scores: The relevance scores, (pairs,), in [0, 1].
        labels: The labels, 0 or 1, (pairs,).
        average_precision: The area below the curve, in [0, 1].

    Returns:
        PNG, WIDTH_PX x HEIGHT_PX.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Explicit figure, canvas and style: no window system, and nothing of the caller's matplotlib is read or changed.
    with matplotlib.rc_context(matplotlib.rcParamsDefault | {"font.size": FONT_SIZE, "text.parse_math": False}):
        figure = Figure(figsize=(WIDTH_PX / DPI, HEIGHT_PX / DPI), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplot_mosaic([["curve", "measures"], ["histogram", "histogram"]])
        _draw_curve(axes["curve"], calibration, scores, labels, average_precision)
        _draw_measures(axes["measures"], calibration, scores, labels)
        _draw_histograms(axes["histogram"], calibration, scores, labels)
        figure.suptitle(_title(calibration), fontsize=FONT_SIZE + 2)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw_curve(axes: Axes, calibration: Calibration, scores: Array, labels: Array, average_precision: float) -> None:
    curve = WeightedCurve(scores, labels)
    precisions, recalls, thresholds = curve.precisions[0], curve.recalls[0], curve.candidates
    inside = (thresholds >= calibration.threshold_low) & (thresholds <= calibration.threshold_high)
    axes.plot(
        recalls[inside],
        precisions[inside],
        color=GREY,
        linewidth=14,
        solid_capstyle="round",
        drawstyle="steps-post",
        label=f"thresholds of the {calibration.confidence:.0%} interval",
    )
    axes.plot([*recalls, 0], [*precisions, 1], color=BLUE, drawstyle="steps-post")
    axes.axhline(labels.mean(), color=BLACK, linestyle=":", linewidth=1)
    axes.annotate("share of relevant pairs", (0.01, labels.mean()), va="bottom", fontsize=FONT_SIZE - 2)
    chosen = calibration.recall, calibration.precision
    axes.plot(*chosen, marker="o", linestyle="", color=BLACK, markersize=9, clip_on=False, zorder=5, label="threshold")
    axes.set(
        title=f"Precision against recall (average precision {average_precision:.3f})",
        xlabel="recall",
        ylabel="precision",
        xlim=(0, 1.01),
        ylim=(0, 1.03),
    )
    axes.legend(loc="lower left")


def _draw_measures(axes: Axes, calibration: Calibration, scores: Array, labels: Array) -> None:
    curve = WeightedCurve(scores, labels)
    _mark_threshold(axes, calibration)
    for name, values, colour, style in (
        ("precision", curve.precisions[0], BLUE, "-"),
        ("recall", curve.recalls[0], ORANGE, "--"),
        ("F1", curve.f1s[0], GREEN, "-."),
    ):
        # A threshold between two scores accepts what the upper one accepts.
        axes.step(curve.candidates, values, where="pre", label=name, color=colour, linestyle=style)
    axes.set(title="Over thresholds", xlabel="threshold", xlim=(0, 1), ylim=(0, 1.03))
    axes.legend(loc="lower center", ncols=3, frameon=True)


def _draw_histograms(axes: Axes, calibration: Calibration, scores: Array, labels: Array) -> None:
    from matplotlib.ticker import MaxNLocator

    _mark_threshold(axes, calibration)
    positives = int(labels.sum())
    axes.hist(
        [scores[labels == 1], scores[labels == 0]],
        bins=np.linspace(0, 1, BINS + 1).tolist(),
        label=[f"relevant ({positives})", f"irrelevant ({len(labels) - positives})"],
        color=[BLUE, ORANGE],
        edgecolor="white",
        hatch=["", "///"],
    )
    axes.set(title="Scores of the labelled pairs", xlabel="relevance score", ylabel="pairs", xlim=(0, 1))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="upper center")


def _mark_threshold(axes: Axes, calibration: Calibration) -> None:
    low, high = calibration.threshold_low, calibration.threshold_high
    axes.axvspan(low, high, color=GREY, linewidth=0, zorder=0, label=f"{calibration.confidence:.0%} interval")
    axes.axvline(calibration.threshold, color=BLACK, linewidth=1.5, label="threshold")


def _title(calibration: Calibration) -> str:
    model = calibration.model.model_id.encode("ascii", "replace").decode("ascii")
    return (
        f"{model}: threshold {calibration.threshold:.3f} for {calibration.target} "
        f"({calibration.confidence:.0%} interval {calibration.threshold_low:.3f} to {calibration.threshold_high:.3f})\n"
        f"precision {calibration.precision:.3f}, recall {calibration.recall:.3f}, F1 {calibration.f1:.3f} on "
        f"{calibration.pairs} pairs of {calibration.queries} queries"
    )
