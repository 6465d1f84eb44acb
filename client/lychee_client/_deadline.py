"""One limit for a whole call, however many requests it needs."""

from __future__ import annotations

import time

from lychee_client._config import check_timeout
from lychee_client._errors import DeadlineExceededError


class Deadline:
    """Starts to run when it is made.

    Args:
        timeout_s: Seconds until the deadline. With None it never passes.

    Raises:
        ConfigurationError: `timeout_s` is not a positive number.
    """

    def __init__(self, timeout_s: float | None) -> None:
        check_timeout(timeout_s)
        self._timeout_s = timeout_s
        self._ends_at_s = None if timeout_s is None else time.monotonic() + timeout_s

    def remaining_s(self, waiting_for: str) -> float | None:
        """Return the seconds that are left, more than 0, or None without a limit.

        Args:
            waiting_for: What the caller waits for, as the message of the error says it.

        Raises:
            DeadlineExceededError: No seconds are left.
        """
        if self._ends_at_s is None:
            return None
        remaining_s = self._ends_at_s - time.monotonic()
        if remaining_s <= 0:
            raise self.exceeded(waiting_for)
        return remaining_s

    def leaves(self, duration_s: float) -> bool:
        """Say whether more than `duration_s` seconds are left."""
        return self._ends_at_s is None or self._ends_at_s - time.monotonic() > duration_s

    def at_most(self, duration_s: float) -> float:
        """Return `duration_s` or, if that is less, the seconds that are left; never below a millisecond."""
        if self._ends_at_s is None:
            return duration_s
        return max(1e-3, min(duration_s, self._ends_at_s - time.monotonic()))

    def exceeded(self, waiting_for: str) -> DeadlineExceededError:
        """Return the error for a deadline that has passed."""
        return DeadlineExceededError(
            f"waited {self._timeout_s:g} s for {waiting_for}; allow more with timeout_s, or send less",
            timeout_s=self._timeout_s,
        )
