"""The driver under both clients: what is in flight, and what becomes of it when a call ends early."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from lychee_client import ConnectionFailedError, DeadlineExceededError, InferenceError
from lychee_client._async_client import await_steps
from lychee_client._client import wait_for_steps
from lychee_client._deadline import Deadline
from lychee_client._driver import Driver, Pause, Steps, WaitFor
from lychee_client._operations import Begin, Handle, Send, Sleep, Wait, in_thread
from lychee_client._retry import RetryPolicy
from lychee_client._workers import Workers
from lychee_client.transports.base import (
    InferRequest,
    InferResponse,
    JsonRequest,
    JsonResponse,
    Request,
    TransportError,
)

REQUEST = InferRequest("model", {"input_ids": np.zeros((2, 1), np.int64)}, ())
LIMIT = 10

CarryOut = Callable[[Steps[Any]], Any]


class Transport:
    """Answers the oldest request as soon as `answer_after` of them are open; every second one fails."""

    def __init__(self, answer_after: int = 1) -> None:
        self.futures: list[Future[Any]] = []
        self.timeouts: list[float | None] = []
        self.most_open = 0
        self._answer_after = answer_after

    def send(self, request: Request, timeout_s: float | None) -> Future[Any]:
        self.futures.append(Future())
        self.timeouts.append(timeout_s)
        pending = [future for future in self.futures if not future.done()]
        self.most_open = max(self.most_open, len(pending))
        if len(pending) >= self._answer_after:
            if self.futures.index(pending[0]) % 2:
                pending[0].set_exception(TransportError(InferenceError, "INTERNAL", "failed", "id"))
            else:
                pending[0].set_result(InferResponse({}))
        return self.futures[-1]

    def close(self) -> None:
        for future in self.futures:
            future.cancel()


@pytest.fixture(params=["sync", "async"])
def carry_out(request: pytest.FixtureRequest) -> CarryOut:
    if request.param == "sync":
        return wait_for_steps
    return lambda steps: asyncio.run(await_steps(steps))


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def make_driver(transport: Transport, pool: ThreadPoolExecutor, timeout_s: float | None = 10) -> Driver:
    return Driver(transport, "localhost:1", Workers(pool).open_call(), Deadline(timeout_s), RetryPolicy(0))


def test_rows_in_flight_are_bounded_and_errors_wait_for_the_plan(carry_out: CarryOut, pool: ThreadPoolExecutor) -> None:
    transport = Transport(answer_after=LIMIT // REQUEST.rows)

    async def call() -> int:
        handles: list[Handle[InferResponse]] = []
        for _ in range(20):
            handles.append(await Send(REQUEST, LIMIT))
        for future in transport.futures:
            if not future.done():
                future.set_result(InferResponse({}))
        failures = 0
        for handle in handles:
            try:
                await Wait(handle)
            except InferenceError:
                failures += 1
        return failures

    assert carry_out(make_driver(transport, pool).drive(call())) == 8
    assert transport.most_open == LIMIT // REQUEST.rows


def test_request_larger_than_the_limit_goes_alone(carry_out: CarryOut, pool: ThreadPoolExecutor) -> None:
    transport = Transport()

    async def call() -> None:
        for _ in range(3):
            await Send(REQUEST, 1)

    carry_out(make_driver(transport, pool).drive(call()))
    assert (len(transport.futures), transport.most_open) == (3, 1)


def test_plan_that_ends_early_cancels_what_is_in_flight(carry_out: CarryOut, pool: ThreadPoolExecutor) -> None:
    transport = Transport(answer_after=99)
    gate = threading.Event()
    ran = []

    async def call() -> None:
        await Send(REQUEST)
        failing = await Send(REQUEST)
        await Begin(gate.wait)
        await Begin(lambda: ran.append("queued job"))
        transport.futures[1].set_exception(TransportError(InferenceError, "INTERNAL", "failed", "id"))
        await Wait(failing)

    with pytest.raises(InferenceError):
        carry_out(make_driver(transport, pool).drive(call()))
    gate.set()
    pool.shutdown()
    assert transport.futures[0].cancelled()
    assert ran == []


def test_cancelled_task_cancels_what_is_in_flight(pool: ThreadPoolExecutor) -> None:
    transport = Transport(answer_after=99)

    async def call() -> None:
        handles = []
        for _ in range(3):
            handles.append(await Send(REQUEST))
        await Wait(handles[0])

    async def cancel() -> None:
        task = asyncio.create_task(await_steps(make_driver(transport, pool).drive(call())))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert [future.cancelled() for future in transport.futures] == [True] * 3


def test_each_request_gets_the_time_that_is_left(carry_out: CarryOut, pool: ThreadPoolExecutor) -> None:
    async def call() -> None:
        await Send(REQUEST)
        job = await Begin(lambda: threading.Event().wait(0.01))
        await Wait(job)
        await Send(REQUEST)

    transport = Transport()
    carry_out(make_driver(transport, pool).drive(call()))
    first, second = transport.timeouts
    assert first is not None
    assert second is not None
    assert 10 >= first > second > 0
    carry_out(make_driver(transport, pool, None).drive(call()))
    assert transport.timeouts[2:] == [None, None]


def test_request_that_outlasts_the_deadline(carry_out: CarryOut, pool: ThreadPoolExecutor) -> None:
    transport = Transport(answer_after=99)

    async def call() -> None:
        await Wait(await Send(REQUEST))

    with pytest.raises(DeadlineExceededError, match=r"0\.05 s for model"):
        carry_out(make_driver(transport, pool, 0.05).drive(call()))
    assert transport.futures[0].cancelled()


def test_job_that_outlasts_the_deadline(carry_out: CarryOut, pool: ThreadPoolExecutor) -> None:
    gate = threading.Event()

    async def call() -> None:
        await in_thread(gate.wait)

    with pytest.raises(DeadlineExceededError, match=r"0\.05 s for preprocessing"):
        carry_out(make_driver(Transport(), pool, 0.05).drive(call()))
    gate.set()


def test_sleep_that_outlasts_the_deadline_names_its_reason(carry_out: CarryOut, pool: ThreadPoolExecutor) -> None:
    async def call() -> None:
        while True:
            await Sleep(60, "the moon")

    with pytest.raises(DeadlineExceededError, match=r"0\.02 s for the moon"):
        carry_out(make_driver(Transport(), pool, 0.02).drive(call()))


def test_jobs_own_timeout_error_is_not_the_deadlines(carry_out: CarryOut, pool: ThreadPoolExecutor) -> None:
    def fail() -> None:
        raise TimeoutError("the job's own")

    async def call() -> None:
        await in_thread(fail)

    with pytest.raises(TimeoutError, match="the job's own"):
        carry_out(make_driver(Transport(), pool).drive(call()))


def test_answer_that_comes_as_the_time_is_up_is_too_late(pool: ThreadPoolExecutor) -> None:
    transport = Transport(answer_after=99)

    async def call() -> None:
        await Wait(await Send(REQUEST))

    steps = make_driver(transport, pool).drive(call())
    next(steps)
    transport.futures[0].set_exception(TransportError(DeadlineExceededError, None, "timed out", "id"))
    with pytest.raises(DeadlineExceededError, match="10 s for model"):
        steps.throw(TimeoutError())


def test_closed_transport_is_connection_failed(carry_out: CarryOut, pool: ThreadPoolExecutor) -> None:
    transport = Transport(answer_after=99)

    async def call() -> None:
        handle = await Send(REQUEST)
        transport.close()
        await Wait(handle)

    with pytest.raises(ConnectionFailedError, match="closed"):
        carry_out(make_driver(transport, pool).drive(call()))


def test_closed_pool_is_connection_failed(carry_out: CarryOut, pool: ThreadPoolExecutor) -> None:
    gate = threading.Event()

    async def close_while_running() -> None:
        await Begin(gate.wait)
        queued = await Begin(int)
        pool.shutdown(wait=False, cancel_futures=True)
        gate.set()
        await Wait(queued)

    async def run_after_close() -> None:
        await Begin(int)

    for call in (close_while_running(), run_after_close()):
        with pytest.raises(ConnectionFailedError, match="closed"):
            carry_out(make_driver(Transport(), pool).drive(call))


class FailingOnce(Transport):
    """Loses the connection at the first request, and never answers the others."""

    def send(self, request: Request, timeout_s: float | None) -> Future[Any]:
        self.futures.append(Future())
        if len(self.futures) == 1:
            self.futures[0].set_exception(TransportError(ConnectionFailedError, None, "lost", "id"))
        return self.futures[-1]


def test_request_that_was_sent_again_is_cancelled_too(pool: ThreadPoolExecutor) -> None:
    transport = FailingOnce()

    async def call() -> None:
        first = await Send(REQUEST, LIMIT)
        await Send(REQUEST, LIMIT)
        await Wait(first)

    retry = RetryPolicy(1, lambda low, high: 0.0)
    steps = Driver(transport, "localhost:1", Workers(pool).open_call(), Deadline(10), retry).drive(call())
    assert next(steps).future is transport.futures[0]
    assert steps.throw(transport.futures[0].exception()) == Pause(0.0)
    assert next(steps).future is transport.futures[2]
    steps.close()
    assert [future.cancelled() for future in transport.futures[1:]] == [True, True]


def test_what_is_in_flight_is_cancelled_when_the_wait_for_room_ends_early(pool: ThreadPoolExecutor) -> None:
    transport = Transport(answer_after=99)

    async def call() -> None:
        for _ in range(9):
            await Send(REQUEST, LIMIT)

    steps = make_driver(transport, pool).drive(call())
    next(steps)
    steps.close()
    assert [future.cancelled() for future in transport.futures] == [True] * (LIMIT // REQUEST.rows)


@pytest.mark.parametrize("ticks", range(4))
def test_a_cancellation_that_comes_with_the_result_counts(ticks: int) -> None:
    future: Future[int] = Future()

    def steps() -> Steps[int]:
        return (yield WaitFor(future, 60.0))

    async def main() -> tuple[bool, bool]:
        task = asyncio.create_task(await_steps(steps()))
        await asyncio.sleep(0)
        future.set_result(1)
        for _ in range(ticks):
            await asyncio.sleep(0)
        accepted = task.cancel()
        await asyncio.wait([task])
        return accepted, task.cancelled()

    accepted, cancelled = asyncio.run(main())
    assert accepted == cancelled


@pytest.mark.parametrize(("once", "unsent", "times"), [(True, False, 1), (True, True, 3), (False, False, 3)])
def test_effect_is_not_repeated_once_it_may_have_arrived(
    carry_out: CarryOut, pool: ThreadPoolExecutor, once: bool, unsent: bool, times: int
) -> None:
    class Broken(Transport):
        def send(self, request: Request, timeout_s: float | None) -> Future[Any]:
            self.futures.append(Future())
            failure = TransportError(ConnectionFailedError, None, "reset", "id")
            failure.unsent = unsent
            self.futures[-1].set_exception(failure)
            return self.futures[-1]

    async def call() -> JsonResponse:
        return await Wait(await Send(JsonRequest("POST", "/v1/feedback", b"{}", once=once)))

    transport = Broken()
    jobs, retry = Workers(pool).open_call(), RetryPolicy(2, lambda low, high: 0.0)
    with pytest.raises(ConnectionFailedError):
        carry_out(Driver(transport, "http://localhost:1", jobs, Deadline(10), retry).drive(call()))
    assert len(transport.futures) == times
