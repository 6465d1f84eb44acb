"""The loop that watches Triton and gateway, and starts them again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from lychee_server.errors import LycheeServerError
from lychee_server.state import Restarts
from lychee_server.supervision.children import Child
from lychee_server.supervision.policy import WINDOW_S, RestartPolicy

__all__ = ["Supervisor"]

LOOK_INTERVAL_S: Final = 0.2

_logger = logging.getLogger("lychee_server.supervision")


@dataclass(slots=True)
class _Watched:
    """A child and where it stands: since `since_s` it starts or runs; or it waits until then; or it is given up."""

    child: Child
    policy: RestartPolicy
    phase: Literal["starting", "running", "waiting", "given up"]
    since_s: float


class Supervisor:
    """Watches children that were started.

    Args:
        children: What to watch.
        start_timeout_s: How long each may take to get ready again.
        most_restarts: How many restarts of one child within ten minutes are sensible.
        publish: Called when something changed that others should know.

    Attributes:
        restarts: For each child that had to be started again, by name.
    """

    def __init__(
        self,
        children: Sequence[Child],
        *,
        start_timeout_s: float,
        most_restarts: int,
        publish: Callable[[], None],
    ) -> None:
        now_s = time.monotonic()
        self.restarts: dict[str, Restarts] = {}
        self._watched = [_Watched(child, RestartPolicy(most_restarts), "starting", now_s) for child in children]
        self._start_timeout_s = start_timeout_s
        self._publish = publish

    def run(self, beat: Callable[[], None] = lambda: None) -> None:
        """Watch for ever.

        Args:
            beat: Called after each look.

        Raises:
            LycheeServerError: One of them failed too often.
        """
        while True:
            for watched in self._watched:
                self.look(watched, time.monotonic())
            beat()
            time.sleep(LOOK_INTERVAL_S)

    def is_running(self, child: Child) -> bool:
        """Tell whether a child is up, and not about to be started again."""
        return any(watched.child is child and watched.phase == "running" for watched in self._watched)

    def renew(self, child: Child) -> None:
        """Take note that another process has taken the place of a child's: it has to be seen to be ready."""
        for watched in self._watched:
            if watched.child is child:
                watched.phase, watched.since_s = "starting", time.monotonic()
        self._publish()

    def look(self, watched: _Watched, now_s: float) -> None:
        """Do what is to be done for one child now."""
        child = watched.child
        if watched.phase == "given up":
            return
        if watched.phase == "waiting":
            if now_s >= watched.since_s:
                child.start_again()
                watched.phase, watched.since_s = "starting", time.monotonic()
                self._publish()
            return
        problem = child.find_problem(now_s)
        if problem is None and watched.phase == "starting":
            try:
                if child.check_ready():
                    self._welcome(watched, now_s)
                elif now_s - watched.since_s > self._start_timeout_s:
                    problem = f"it was not ready {self._start_timeout_s:g} s after its start"
            except LycheeServerError as error:
                problem = str(error)
        if problem is not None:
            self._plan_restart(watched, problem, now_s)

    def _welcome(self, watched: _Watched, now_s: float) -> None:
        if watched.child.name in self.restarts:
            _logger.warning("%s is back after %.1f s", watched.child.name, now_s - watched.since_s)
        watched.phase, watched.since_s = "running", now_s

    def _plan_restart(self, watched: _Watched, problem: str, now_s: float) -> None:
        name = watched.child.name
        watched.child.stop_watching()
        delay_s = watched.policy.decide(now_s, now_s - watched.since_s if watched.phase == "running" else 0.0)
        before = self.restarts.get(name)
        count = 0 if before is None else before.count
        if delay_s is None:
            failure = (
                f"{name} failed ({problem}), and was started again {watched.policy.most_restarts} times within "
                f"{WINDOW_S / 60:g} minutes already; gave up. See the logs, and start it with `lychee load`."
            )
            if not self._has_others(watched):
                raise LycheeServerError(failure)
            _logger.error("%s The other models are served on.", failure)
            watched.child.end()
            watched.phase = "given up"
            self.restarts[name] = Restarts(count, f"{problem}; gave up", time.time())
            self._publish()
            return
        self.restarts[name] = Restarts(count + 1, problem, time.time())
        _logger.error("%s failed: %s; starting it again%s", name, problem, f" in {delay_s:g} s" if delay_s else "")
        watched.phase, watched.since_s = "waiting", now_s + delay_s
        self._publish()

    def _has_others(self, given_up: _Watched) -> bool:
        """Tell whether others of its kind are of use without one."""
        others = [each for each in self._watched if each.child is not given_up.child and each.phase != "given up"]
        return given_up.child.is_spare and any(each.child.is_spare for each in others)
