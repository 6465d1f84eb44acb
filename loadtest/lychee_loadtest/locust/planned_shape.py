"""A planned shape as Locust knows shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from locust import LoadTestShape, User

from lychee_loadtest.locust.shapes import Stage, level_at

__all__ = ["PlannedShape"]


class PlannedShape(LoadTestShape):
    """Tells Locust how many users a plan wants.

    Args:
        stages: The plan.
        count_users: Returns the users, of all classes, for a level.
        spawn_rate: How many users to start per second.
    """

    def __init__(self, stages: Sequence[Stage], count_users: Callable[[float], int], spawn_rate: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._stages = stages
        self._count_users = count_users
        self._spawn_rate = spawn_rate

    def tick(self) -> tuple[int, float] | tuple[int, float, list[type[User]] | None] | None:
        """Return users and spawn rate of this moment; None when the run is over."""
        level = level_at(self._stages, self.get_run_time())  # type: ignore[no-untyped-call]
        return (self._count_users(level), self._spawn_rate) if level > 0 else None
