"""How far a run is: a bar on a terminal, and else a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from lychee_bulk.extent import Extent

INTERVAL_S: Final = 30.0

Advance = Callable[[int, int], None]
"""Called with the numbers of further rows, and of those among their pairs that failed."""


@contextmanager
def shown(
    extent: Extent, done: int, tell: Callable[[str], None], interval_s: float, console: Console | None = None
) -> Iterator[Advance]:
    """Show progress.

    Args:
        extent: How many rows there are, as far as it is known.
        done: How many were done before.
        tell: Writes a line, where there is no terminal.
        interval_s: Seconds between two lines.
        console: Where the bar is; None takes standard error.
    """
    console = console or Console(stderr=True)
    lines = Lines(extent, done, tell, interval_s)
    if not console.is_terminal:
        yield lines.advance
        return
    with Progress(TextColumn("{task.description}"), BarColumn(), console=console) as bar:
        task = bar.add_task(lines.describe(), total=extent.rows, completed=done)

        def advance(rows: int, failed: int) -> None:
            lines.count(rows, failed)
            bar.update(task, advance=rows, total=extent.rows, description=lines.describe())

        yield advance


class Lines:
    """Counts, and says how far it is.

    Args:
        extent: How many rows there are, as far as it is known.
        done: How many were done before.
        tell: Writes a line.
        interval_s: Seconds between two lines.
        clock: The time in seconds.
    """

    def __init__(
        self,
        extent: Extent,
        done: int,
        tell: Callable[[str], None],
        interval_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._extent, self._done, self._tell, self._interval_s, self._clock = extent, done, tell, interval_s, clock
        self._before, self._failed = done, 0
        self._began = self._told = clock()

    def count(self, rows: int, failed: int) -> None:
        """Count further rows."""
        self._done += rows
        self._failed += failed

    def advance(self, rows: int, failed: int) -> None:
        """Count further rows; write a line if it is time."""
        self.count(rows, failed)
        if self._clock() - self._told >= self._interval_s:
            self._told = self._clock()
            self._tell(self.describe())

    def describe(self) -> str:
        """Return rows, errors, rows per second, and as soon as the number of rows can be guessed, the time left."""
        elapsed = self._clock() - self._began
        speed = (self._done - self._before) / elapsed if elapsed > 0 else 0.0
        total = self._extent.rows
        about = "" if self._extent.is_known else "about "
        words = [f"{self._done:,}" + ("" if total is None else f" of {about}{total:,}") + " rows"]
        words += [f"{self._failed:,} errors", f"{speed:,.1f} rows/s"]
        if total is not None and speed > 0:
            words.append(f"{format_duration((total - self._done) / speed)} left")
        return ", ".join(words)


def format_duration(seconds: float) -> str:
    """Return a duration for people: 45 s, 12 min, 3 h 20 min."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{max(0.0, seconds):.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
