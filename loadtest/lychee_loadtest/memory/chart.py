"""Stacked bars: the layers of the deployment and of its models, by batch, with the limit as a line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lychee_loadtest.charts import COLORS, new_chart, save_chart
from lychee_loadtest.memory.layers import LAYERS, Layers
from lychee_loadtest.memory.plan import Need

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_needs"]

MB: Final = 1e6
BAR_WIDTH: Final = 0.65
HEADROOM: Final = 1.18
MOST_MODELS: Final = 3
_HATCHES: Final = ("", "//", "..", "xx")
_ORDER: Final = ("framework", "weights", "attention", "temporary")
_NAMES: Final = {
    "framework": "framework",
    "weights": "weights",
    "attention": "attention state",
    "temporary": "temporary tensors",
}
assert set(_ORDER) == set(LAYERS)


def draw_needs(needs: Sequence[Need], limit_bytes: int | None, path: Path) -> None:
    """Draw the deployment and the models that grow with the batch.

    Args:
        needs: What one deployment needs at several batch sizes, ascending.
        limit_bytes: The limit that is drawn as a line across the deployment's bars; None for no line.
        path: The PNG file to write; its folder must exist.

    Raises:
        ConfigurationError: The file cannot be written.
    """
    growing = [
        index
        for index, model in enumerate(needs[-1].models)
        if model.prediction.layers.temporary + model.prediction.layers.attention > MB
    ][:MOST_MODELS]
    first = needs[0]
    kind = "GPU memory" if first.on_gpu else "memory"
    tokens = "" if first.tokens is None else f" of up to {first.tokens} tokens"
    title = f"Predicted {kind}: texts{tokens}{' and images' if first.images else ''}"
    figure, axes = new_chart(title, panels=1 + len(growing))
    # An odd number of panels puts the last one over the whole width: that is where the deployment belongs.
    places = axes if len(axes) % 2 == 0 else [axes[-1], *axes[:-1]]
    _draw_deployment(places[0], needs, limit_bytes)
    for place, index in zip(places[1:], growing, strict=True):
        name = first.models[index].measurement
        several = f", {name.instances} instances" if name.instances > 1 else ""
        _draw_bars(place, needs, [need.models[index].layers for need in needs], f"{name.model}{several}")
        errors = [need.models[index].error_bytes for need in needs]
        _draw_errors(place, [need.models[index].layers.total for need in needs], errors)
    places[0].legend(loc="upper left", ncols=2)
    save_chart(figure, path)


def _draw_deployment(axes: Axes, needs: Sequence[Need], limit_bytes: int | None) -> None:
    layers = [need.layers + Layers(framework=-need.shared_bytes) for need in needs]
    _draw_bars(axes, needs, layers, "whole deployment, shared libraries once")
    _draw_errors(axes, [need.serving_bytes for need in needs], [need.error_bytes for need in needs])
    loading = needs[0].loading_bytes / MB
    axes.axhline(loading, color=COLORS[-1], linestyle=":", linewidth=2, label="peak while loading, at most")
    top = max(loading, *(need.serving_bytes / MB for need in needs))
    if limit_bytes is not None:
        axes.axhline(limit_bytes / MB, color=COLORS[-1], linestyle="--", linewidth=2, label="limit")
        top = max(top, limit_bytes / MB)
    axes.set_ylim(0, top * (HEADROOM + 0.2))


def _draw_bars(axes: Axes, needs: Sequence[Need], layers: Sequence[Layers], title: str) -> None:
    places = range(len(needs))
    bottom = [0.0] * len(needs)
    for name, color, hatch in zip(_ORDER, COLORS, _HATCHES, strict=False):
        heights = [getattr(entry, name) / MB for entry in layers]
        axes.bar(
            places,
            heights,
            BAR_WIDTH,
            bottom=bottom,
            label=_NAMES[name],
            color=color,
            hatch=hatch,
            edgecolor="white",
            linewidth=0,
        )
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    for place, height in zip(places, bottom, strict=True):
        axes.annotate(
            f"{height:,.0f}",
            (place, height),
            (0, 7),
            textcoords="offset points",
            ha="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            zorder=5,
        )
    axes.set_xticks(list(places), [str(need.batch) for need in needs])
    axes.set_ylim(0, max(bottom) * HEADROOM)
    axes.grid(visible=False, axis="x")
    axes.set(title=title, xlabel="documents in a batch", ylabel="MB")


def _draw_errors(axes: Axes, totals: Sequence[float], errors: Sequence[float]) -> None:
    heights, sizes = [total / MB for total in totals], [error / MB for error in errors]
    places = [place + BAR_WIDTH / 3 for place in range(len(totals))]
    axes.errorbar(places, heights, yerr=sizes, fmt="none", ecolor=COLORS[-1], elinewidth=1.2, capsize=3)
