"""What all pictures of the commands share."""

from __future__ import annotations

import struct
from pathlib import Path

import matplotlib as mpl
import pytest
from lychee_client import ConfigurationError
from lychee_loadtest import charts


def read_size(path: Path) -> tuple[int, int]:
    """Return width and height that a PNG file declares."""
    width, height = struct.unpack(">II", path.read_bytes()[16:24])
    return width, height


@pytest.mark.parametrize(("panels", "rows"), [(1, 1), (2, 1), (3, 2), (4, 2)])
def test_a_chart_is_1600_pixels_wide_with_two_panels_a_row(tmp_path: Path, panels: int, rows: int) -> None:
    figure, axes = charts.new_chart("a title with $ and _", panels=panels)
    assert len(axes) == panels
    charts.save_chart(figure, tmp_path / "chart.png")
    assert read_size(tmp_path / "chart.png") == (1600, rows * 800)


def test_an_odd_last_panel_takes_the_whole_width() -> None:
    figure, axes = charts.new_chart("", panels=3)
    figure.canvas.draw()
    assert axes[2].get_position().width > 1.8 * axes[0].get_position().width


def test_the_callers_matplotlib_stays_as_it_is(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    figure, _ = charts.new_chart("")
    charts.save_chart(figure, tmp_path / "chart.png")
    assert dict(mpl.rcParams) == before


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    figure, _ = charts.new_chart("")
    with pytest.raises(ConfigurationError, match=r"absent/chart\.png cannot be written"):
        charts.save_chart(figure, tmp_path / "absent" / "chart.png")
