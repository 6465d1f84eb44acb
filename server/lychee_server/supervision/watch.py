"""Whether something still answers, asked again and again in a thread."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from typing import Final

__all__ = ["MOST_BUSY_S", "STUCK_S", "Watch"]

STUCK_S: Final = 10.0
MOST_BUSY_S: Final = 300.0
INTERVAL_S: Final = 3.0
RETRY_S: Final = 0.5
SHARE_OF_TIME: Final = 0.05  # asking costs no more than this of what the asked one can do
BUSY_CPU_S: Final = 0.1  # a process that stands still uses nothing at all


class Watch:
    """Asks until it is ended.

    Who does not answer for `STUCK_S` is stuck, unless it computes all the while: then it may have an honest long batch,
    and gets `MOST_BUSY_S`.

    Args:
        name: Who is asked.
        ask: Returns when an answer came, whatever it says, and raises OSError or HTTPException where none will come.
        cpu_s: Return the CPU time that it has used; None: being busy is no excuse.

    Attributes:
        answered: Whether it ever answered.
    """

    def __init__(self, name: str, ask: Callable[[], None], *, cpu_s: Callable[[], float] | None = None) -> None:
        self.name = name
        self.answered = False
        self._ask = ask
        self._cpu_s = cpu_s
        self._waiting_since_s: float | None = None
        self._mark: tuple[float, float, float] | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"watch {name}", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def end(self) -> None:
        """Ask no more; a question that is open may stay so for a while."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.is_set():
            began_s = time.monotonic()
            if self._waiting_since_s is None:
                self._waiting_since_s = began_s
            try:
                self._ask()
            except (OSError, http.client.HTTPException):
                self._ended.wait(RETRY_S)
                continue
            self._waiting_since_s, self.answered = None, True
            self._ended.wait(max(INTERVAL_S, (time.monotonic() - began_s) / SHARE_OF_TIME))

    def find_problem(self, now_s: float) -> str | None:
        """Say for how long it has been stuck; None if it is not. To be called often."""
        since_s = self._waiting_since_s
        if since_s is None:
            return None
        if self._mark is None or self._mark[0] != since_s:
            self._mark = since_s, now_s, self._read_cpu_s()
        _, marked_s, cpu_s = self._mark
        if now_s - since_s < STUCK_S or now_s - marked_s < STUCK_S:
            return None
        if now_s - since_s < MOST_BUSY_S and self._read_cpu_s() - cpu_s > BUSY_CPU_S:
            self._mark = since_s, now_s, self._read_cpu_s()
            return None
        return f"{self.name} did not answer for {now_s - since_s:.0f} s"

    def _read_cpu_s(self) -> float:
        return 0.0 if self._cpu_s is None else self._cpu_s()
