"""When a process is started again, and when no more."""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["MOST_RESTARTS", "RestartPolicy"]

MOST_RESTARTS: Final = 10
WINDOW_S: Final = 600.0
LONGEST_DELAY_S: Final = 30.0
STEADY_S: Final = 5.0  # whoever ran for so long starts at once


class RestartPolicy:
    """The delays of one process: none, then 1, 2, 4 seconds and so on while it keeps failing.

    Args:
        most_restarts: How many within `WINDOW_S` are sensible.
    """

    def __init__(self, most_restarts: int = MOST_RESTARTS) -> None:
        self.most_restarts = most_restarts
        self._failures = 0
        self._restarts: deque[float] = deque()

    def decide(self, now_s: float, ran_s: float) -> float | None:
        """Return in how many seconds to start the process again; None to give up.

        Args:
            now_s: The time, on a clock that nobody sets.
            ran_s: How long the process was ready before it failed; 0 if it never was.
        """
        while self._restarts and now_s - self._restarts[0] > WINDOW_S:
            self._restarts.popleft()
        if len(self._restarts) >= self.most_restarts:
            return None
        self._restarts.append(now_s)
        self._failures = 1 if ran_s >= STEADY_S else self._failures + 1
        return 0.0 if self._failures == 1 else min(LONGEST_DELAY_S, 2.0 ** (self._failures - 2))
