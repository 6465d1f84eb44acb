"""How many calls are computed at the same time, how many may wait, and when the rest should come again."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from lychee_client import LycheeError

from lychee_server.gateway.tracing.current import stage

MIN_RETRY_AFTER_S: Final = 1
MAX_RETRY_AFTER_S: Final = 60
FIRST_DURATION_S: Final = 0.5  # a guess that the first calls correct
SMOOTHING: Final = 0.1  # weight of the newest call in the moving average


class TooBusyError(LycheeError):
    """The gateway computes and queues all it may; nothing of the call was done.

    Attributes:
        retry_after_s: Whole seconds after which the call is likely to be taken.
    """

    retryable = True

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(eq=False, slots=True)
class _Waiter:
    bulk: bool
    granted: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class ConcurrencyLimit:
    """Slots for calls, handed out in the order of arrival; to be used on one event loop.

    Bulk calls get at most half of the slots and half of the waiting places, so an interactive call never stands behind
    a row of them. With a single slot there is no half: then only the order of arrival counts.

    Args:
        max_running: How many slots there are.
        max_waiting: How many calls may wait for one.

    Attributes:
        running: How many calls hold a slot.
        peak: The most that ever held one at the same time.
    """

    def __init__(self, max_running: int, max_waiting: int) -> None:
        self.max_running = max_running
        self.max_waiting = max_waiting
        self.running = 0
        self.peak = 0
        self._max_bulk_running = max(1, max_running // 2)
        self._max_bulk_waiting = math.ceil(max_waiting / 2)
        self._bulk_running = 0
        self._waiters: deque[_Waiter] = deque()
        self._mean_duration_s = FIRST_DURATION_S

    @property
    def waiting(self) -> int:
        """Calls that wait for a slot."""
        return len(self._waiters)

    @asynccontextmanager
    async def slot(self, timeout_s: float | None, *, bulk: bool = False) -> AsyncIterator[None]:
        """Hold a slot for the body.

        Args:
            timeout_s: How many seconds to wait for it at most; None waits as long as it takes.
            bulk: Whether the call yields to interactive ones.

        Raises:
            TooBusyError: Too many wait already, or no slot got free in time.
        """
        with stage("queue"):
            await self._acquire(timeout_s, bulk)
        began_at_s = time.monotonic()
        try:
            yield
        finally:
            self._mean_duration_s += SMOOTHING * (time.monotonic() - began_at_s - self._mean_duration_s)
            self._release(bulk)

    def retry_after_s(self) -> int:
        """Estimate after how many whole seconds a new call would get a slot, spread so that not all come at once."""
        queued_s = self._mean_duration_s * (self.waiting + 1) / self.max_running
        least = min(MAX_RETRY_AFTER_S, max(MIN_RETRY_AFTER_S, math.ceil(queued_s)))
        return min(MAX_RETRY_AFTER_S, least + random.randint(0, max(1, least // 2)))

    async def _acquire(self, timeout_s: float | None, bulk: bool) -> None:
        if self._may_run(bulk) and not any(self._may_run(waiter.bulk) for waiter in self._waiters):
            self._take(bulk)
            return
        bulk_waiting = sum(waiter.bulk for waiter in self._waiters)
        if self.waiting >= self.max_waiting or (bulk and bulk_waiting >= self._max_bulk_waiting):
            raise self._too_busy("too many wait already")
        waiter = _Waiter(bulk)
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter.granted
        except BaseException as error:
            self._withdraw(waiter)
            if isinstance(error, TimeoutError):
                raise self._too_busy(f"none got free within {timeout_s:g} s") from None
            raise

    def _withdraw(self, waiter: _Waiter) -> None:
        """Leave the queue, or give back the slot that came in the same moment."""
        if waiter.granted.done() and not waiter.granted.cancelled():
            self._release(waiter.bulk)
        else:
            self._waiters.remove(waiter)
            self._grant()  # a bulk call may have stood before others

    def _too_busy(self, reason: str) -> TooBusyError:
        retry_after_s = self.retry_after_s()
        return TooBusyError(
            f"all {self.max_running} slots are taken, {self.waiting} calls wait, and {reason}; "
            f"try again in {retry_after_s} s",
            retry_after_s=retry_after_s,
        )

    def _may_run(self, bulk: bool) -> bool:
        return self.running < self.max_running and not (bulk and self._bulk_running >= self._max_bulk_running)

    def _take(self, bulk: bool) -> None:
        self.running += 1
        self.peak = max(self.peak, self.running)
        self._bulk_running += bulk

    def _release(self, bulk: bool) -> None:
        self.running -= 1
        self._bulk_running -= bulk
        self._grant()

    def _grant(self) -> None:
        """Hand free slots to those who wait; an interactive call passes bulk calls that may not run yet."""
        for waiter in tuple(self._waiters):
            if self._may_run(waiter.bulk) and not waiter.granted.done():
                self._waiters.remove(waiter)
                self._take(waiter.bulk)
                waiter.granted.set_result(None)
