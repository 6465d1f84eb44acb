"""When to try a request again: capped exponential back-off with full jitter."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from lychee_client._errors import ConfigurationError

DEFAULT_MAX_RETRIES: Final = 2
FIRST_CEILING_S: Final = 0.1
MAX_CEILING_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how soon a request that failed with a retryable error is sent again.

    Before retry number n, counted from 0, the client waits a random time between 0 and `FIRST_CEILING_S` * 2^n seconds,
    at most `MAX_CEILING_S`, so that clients that failed together do not come back together.

    Args:
        max_retries: The most times that one request is sent again; with 0 it is sent once.
        uniform: Draws a number between the two that it is given.

    Raises:
        ConfigurationError: `max_retries` is not a whole number from 0 on.
    Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/, "full jitter".
    """

    max_retries: int = DEFAULT_MAX_RETRIES
    uniform: Callable[[float, float], float] = random.uniform

    def __post_init__(self) -> None:
        if not isinstance(self.max_retries, int) or isinstance(self.max_retries, bool) or self.max_retries < 0:
            raise ConfigurationError(f"max_retries is {self.max_retries!r}; expected a whole number from 0 on")

    def pause_s(self, retries: int) -> float | None:
        """Return the seconds to wait before the next retry, or None if there is none.

        Args:
            retries: How many retries there have been.
        """
        if retries >= self.max_retries:
            return None
        return self.uniform(0.0, min(MAX_CEILING_S, FIRST_CEILING_S * 2.0**retries))
