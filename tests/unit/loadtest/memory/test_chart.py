"""The picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lychee_client import ConfigurationError
from lychee_loadtest.memory import chart
from lychee_loadtest.memory.chart import draw_needs
from lychee_loadtest.memory.layers import SizeRun
from lychee_loadtest.memory.plan import plan_memory

MB = 1_000_000


def test_the_bars_add_up_to_the_prediction_and_the_limit_is_a_line(
    measure: Any, size_run: Callable[..., SizeRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[Any] = []
    monkeypatch.setattr(chart, "save_chart", lambda figure, path: saved.append(figure))
    model = measure(size_run(None, 10 * MB))
    needs = [plan_memory([model, measure(model="idle")], batch, images=False) for batch in (1, 8)]
    draw_needs(needs, 900 * MB, tmp_path / "memory.png")
    whole, encoder = saved[0].axes
    assert encoder.get_title() == "text_encoder"
    for axes, totals in ((whole, [need.serving_bytes for need in needs]), (encoder, [330 * MB, 400 * MB])):
        heights = [sum(bars[index].get_height() for bars in axes.containers[:4]) for index in (0, 1)]
        assert heights == pytest.approx([total / MB for total in totals])
    lines = {line.get_label(): line.get_ydata()[0] for line in whole.lines}
    assert lines["limit"] == 900
    assert lines["peak while loading, at most"] == pytest.approx(needs[0].loading_bytes / MB)


def test_a_missing_folder_is_named(measure: Any, size_run: Callable[..., SizeRun], tmp_path: Path) -> None:
    needs = [plan_memory([measure(size_run(None, 10 * MB))], 8, images=False)]
    with pytest.raises(ConfigurationError, match="nowhere"):
        draw_needs(needs, None, tmp_path / "nowhere" / "memory.png")
