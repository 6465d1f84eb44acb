"""What all pictures of the commands share: size, colours, a light grid, and writing the file.

matplotlib is slow to import and is imported inside the functions. Figure and canvas are explicit: no window system,
no pyplot, and nothing of the caller's matplotlib is read or changed for longer than a call.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lychee_client.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLORS", "MARKERS", "new_chart", "save_chart"]

WIDTH_PX: Final = 1600
ROW_HEIGHT_PX: Final = 800
DPI: Final = 140  # makes matplotlib's default sizes readable at this width
GRID_COLOR: Final = "#DDDDDD"
# Okabe and Ito's palette, which every kind of colour vision tells apart, the strong ones first.
# Source: https://jfly.uni-koeln.de/color/
COLORS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# Lines differ in their marks as well, for print without colour.
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")
STYLE: Final[dict[Any, Any]] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": GRID_COLOR,
}


def new_chart(title: str, *, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """Make an empty picture, WIDTH_PX wide: two panels side by side, an odd last one over the whole width.

    Args:
        title: The text above all panels; line breaks are kept.
        panels: How many panels there are; at least 1.

    Returns:
        The figure, and its axes in reading order, with the grid on.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = (panels + 1) // 2
    size = (WIDTH_PX / DPI, rows * ROW_HEIGHT_PX / DPI)
    with matplotlib.rc_context(matplotlib.rcParamsDefault | STYLE):
        figure = Figure(figsize=size, dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(rows, 2)
        cells = [grid[number // 2, number % 2] for number in range(panels)]
        if panels % 2 == 1:
            cells[-1] = grid[-1, :]
        axes = [figure.add_subplot(cell) for cell in cells]
        figure.suptitle(title, parse_math=False)  # names of models may hold dollar signs
    return figure, axes


def save_chart(figure: Figure, path: Path) -> None:
    """Write the picture as PNG, atomically: a failure leaves the old file.

    Raises:
        ConfigurationError: The file cannot be written, for example because its folder is missing; the message names it.
    """
    import matplotlib

    picture = io.BytesIO()
    with matplotlib.rc_context(matplotlib.rcParamsDefault | STYLE):
        figure.savefig(picture, format="png", metadata={"Software": None})
    write_atomically(path, picture.getvalue())
