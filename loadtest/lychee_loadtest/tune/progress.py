"""What the command says while it measures: each step, and how much time is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

__all__ = ["START_S", "Progress"]

START_S: Final = 5.0  # a guess of Triton's start, until the first one was measured


class Progress:
    """Counts planned seconds down. Steps that take longer than planned move the end."""

    def __init__(self, say: Callable[[str], None], *, measuring_s: float, starts: int) -> None:
        """Begin.

        Args:
            say: Shows a line.
            measuring_s: How many seconds of load are planned.
            starts: How many starts of Triton are planned.
        """
        self._say = say
        self._measuring_s = measuring_s
        self._starts = starts
        self._start_s = START_S

    @property
    def left_s(self) -> float:
        """Seconds that the rest will take."""
        return max(0.0, self._measuring_s) + max(0, self._starts) * self._start_s

    def step(self, text: str, seconds: float = 0.0) -> None:
        """Show what begins now, and what is left with it."""
        self._say(f"{text}; about {max(self.left_s, seconds):.0f} s left")

    def measured(self, seconds: float) -> None:
        """Take measuring off the plan."""
        self._measuring_s -= seconds

    def started(self, seconds: float) -> None:
        """Take a start off the plan, and expect the next ones to take as long."""
        self._starts -= 1
        self._start_s = seconds
