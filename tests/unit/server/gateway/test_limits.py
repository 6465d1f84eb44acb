"""Slots: their number, the order of those who wait, and when the rest should come again."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from lychee_server.gateway import limits
from lychee_server.gateway.limits import ConcurrencyLimit, TooBusyError


class Caller:
    """A call that holds its slot until it is told to end."""

    def __init__(self, limit: ConcurrencyLimit, *, timeout_s: float | None = None, bulk: bool = False) -> None:
        self.runs = asyncio.Event()
        self.may_end = asyncio.Event()
        self.task = asyncio.create_task(self._call(limit, timeout_s, bulk))

    async def _call(self, limit: ConcurrencyLimit, timeout_s: float | None, bulk: bool) -> None:
        async with limit.slot(timeout_s, bulk=bulk):
            self.runs.set()
            await self.may_end.wait()

    async def end(self) -> None:
        self.may_end.set()
        await self.task


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(10):
        await asyncio.sleep(0)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def test_calls_beyond_the_slots_wait_in_order_of_arrival() -> None:
    async def test() -> None:
        limit = ConcurrencyLimit(2, 5)
        callers = [Caller(limit) for _ in range(5)]
        await settle()
        assert (limit.running, limit.waiting) == (2, 3)
        for position in range(3):
            await callers[position].end()
            await settle()
            assert [caller.runs.is_set() for caller in callers] == [True] * (position + 3) + [False] * (2 - position)
        for caller in callers[3:]:
            await caller.end()
        assert (limit.running, limit.waiting, limit.peak) == (0, 0, 2)

    run(test())


def test_a_call_beyond_the_waiting_places_is_refused_at_once() -> None:
    async def test() -> None:
        limit = ConcurrencyLimit(1, 1)
        callers = [Caller(limit), Caller(limit)]
        await settle()
        with pytest.raises(TooBusyError, match=r"all 1 slots are taken, 1 calls wait.*try again in \d+ s"):
            async with limit.slot(None):
                pass
        for caller in callers:
            await caller.end()
        async with limit.slot(None):
            assert limit.running == 1

    run(test())


def test_a_waiter_whose_time_is_up_leaves_the_queue() -> None:
    async def test() -> None:
        limit = ConcurrencyLimit(1, 3)
        first = Caller(limit)
        await settle()
        with pytest.raises(TooBusyError, match=r"none got free within 0\.01 s"):
            async with limit.slot(0.01):
                pass
        assert limit.waiting == 0
        await first.end()
        assert limit.running == 0

    run(test())


def test_a_cancelled_waiter_leaves_no_trace() -> None:
    async def test() -> None:
        limit = ConcurrencyLimit(1, 3)
        first, second, third = (Caller(limit) for _ in range(3))
        await settle()
        second.task.cancel()
        await settle()
        assert limit.waiting == 1
        await first.end()
        await settle()
        assert third.runs.is_set()
        await third.end()
        assert (limit.running, limit.waiting) == (0, 0)

    run(test())


def test_a_slot_that_comes_in_the_moment_of_cancelling_goes_to_the_next() -> None:
    async def test() -> None:
        limit = ConcurrencyLimit(1, 3)
        first, second, third = (Caller(limit) for _ in range(3))
        await settle()
        first.may_end.set()
        while not first.task.done():
            await asyncio.sleep(0)
            if limit.waiting == 1:  # the second has the slot and has not run yet
                second.task.cancel()
        await settle()
        assert third.runs.is_set()
        assert limit.running == 1
        await third.end()
        assert limit.running == 0

    run(test())


def test_a_failing_call_gives_its_slot_back() -> None:
    async def test() -> None:
        limit = ConcurrencyLimit(1, 0)
        with pytest.raises(KeyError):
            async with limit.slot(None):
                raise KeyError
        assert limit.running == 0

    run(test())


def test_bulk_calls_leave_half_of_slots_and_places_to_interactive_ones() -> None:
    async def test() -> None:
        limit = ConcurrencyLimit(4, 4)
        bulk = [Caller(limit, bulk=True) for _ in range(4)]
        await settle()
        assert [caller.runs.is_set() for caller in bulk] == [True, True, False, False]
        with pytest.raises(TooBusyError):
            async with limit.slot(None, bulk=True):
                pass
        interactive = [Caller(limit) for _ in range(4)]
        await settle()
        assert [caller.runs.is_set() for caller in interactive] == [True, True, False, False]
        await interactive[0].end()
        await settle()
        assert interactive[2].runs.is_set()  # it passed the bulk calls that may not run yet
        assert not bulk[2].runs.is_set()
        await bulk[0].end()
        await settle()
        assert bulk[2].runs.is_set()
        for caller in (*interactive[1:], *bulk[1:]):
            await caller.end()
        assert (limit.running, limit.waiting) == (0, 0)

    run(test())


def test_a_single_slot_serves_bulk_calls_too() -> None:
    async def test() -> None:
        limit = ConcurrencyLimit(1, 2)
        bulk, interactive = Caller(limit, bulk=True), Caller(limit)
        await settle()
        assert bulk.runs.is_set()
        await bulk.end()
        await interactive.end()

    run(test())


def test_retry_after_grows_with_duration_and_queue_within_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        now_s = [0.0]
        # Not the function of `time` itself: the event loops of other threads would sleep until its time comes.
        monkeypatch.setattr(limits, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
        monkeypatch.setattr(limits.random, "randint", lambda low, high: low)
        limit = ConcurrencyLimit(1, 100)
        assert limit.retry_after_s() == 1
        for _ in range(100):
            async with limit.slot(None):
                now_s[0] += 4.0
        assert limit.retry_after_s() == 4
        callers = [Caller(limit) for _ in range(5)]
        await settle()
        assert limit.retry_after_s() == 20
        callers += [Caller(limit) for _ in range(95)]
        await settle()
        monkeypatch.setattr(limits.random, "randint", lambda low, high: high)
        assert limit.retry_after_s() == 60
        for caller in callers:
            caller.task.cancel()
        await asyncio.gather(*(caller.task for caller in callers), return_exceptions=True)
        assert (limit.running, limit.waiting) == (0, 0)

    run(test())


def test_retry_after_is_spread() -> None:
    limit = ConcurrencyLimit(1, 0)
    assert {limit.retry_after_s() for _ in range(200)} == {1, 2}
