"""The driver: how many requests are in flight, and what becomes of them when a call ends early."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from lychee_client import ConnectionFailedError, DeadlineExceededError, InferenceError, LycheeError
from lychee_client._deadline import Deadline
from lychee_client._driver import MAX_IN_FLIGHT, Driver
from lychee_client._plan import Handle, Plan, run, send, wait
from lychee_client._transports.base import InferRequest, InferResponse
from lychee_client._transports.fake import FakePendingResponse, FakeTransport

REQUEST = InferRequest("model", {}, ())


class Pending(FakePendingResponse):
    """Notes what is done to it."""

    def __init__(self, outcome: InferResponse | LycheeError) -> None:
        super().__init__(outcome)
        self.waited = self.cancelled = False

    def result(self) -> InferResponse:
        self.waited = True
        return super().result()

    def cancel(self) -> None:
        self.cancelled = True


class Transport(FakeTransport):
    """Fails every second request, and keeps what it has sent."""

    def __init__(self) -> None:
        super().__init__()
        self.pending: list[Pending] = []
        self.timeouts: list[float | None] = []

    def send(self, request: InferRequest, timeout_s: float | None) -> Pending:
        failed = len(self.pending) % 2 == 1
        self.pending.append(Pending(InferenceError("failed") if failed else InferResponse({})))
        self.timeouts.append(timeout_s)
        return self.pending[-1]


@pytest.fixture
def transport() -> Transport:
    return Transport()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def test_in_flight_is_bounded_and_errors_wait_for_the_plan(transport: Transport, pool: ThreadPoolExecutor) -> None:
    unwaited = []

    def plan() -> Plan[int]:
        handles: list[Handle[InferResponse]] = []
        for _ in range(MAX_IN_FLIGHT + 5):
            handles.append((yield from send(REQUEST)))
            unwaited.append(sum(not pending.waited for pending in transport.pending))
        failures = 0
        for handle in handles:
            try:
                yield from wait(handle)
            except InferenceError:
                failures += 1
        return failures

    assert Driver(transport, pool, Deadline(10)).drive(plan()) == (MAX_IN_FLIGHT + 5) // 2
    assert max(unwaited) == MAX_IN_FLIGHT


def test_plan_that_ends_early_cancels_what_is_in_flight(transport: Transport, pool: ThreadPoolExecutor) -> None:
    gate = threading.Event()
    ran = []

    def plan() -> Plan[None]:
        yield from send(REQUEST)
        failing = yield from send(REQUEST)
        yield from run(gate.wait)
        yield from run(lambda: ran.append("queued job"))
        yield from wait(failing)

    with pytest.raises(InferenceError):
        Driver(transport, pool, Deadline(10)).drive(plan())
    gate.set()
    pool.shutdown()
    assert [pending.cancelled for pending in transport.pending] == [True, True]
    assert ran == []


def test_each_request_gets_the_time_that_is_left(transport: Transport, pool: ThreadPoolExecutor) -> None:
    def plan() -> Plan[None]:
        yield from send(REQUEST)
        job = yield from run(lambda: threading.Event().wait(0.01))
        yield from wait(job)
        yield from send(REQUEST)

    Driver(transport, pool, Deadline(10)).drive(plan())
    first, second = transport.timeouts
    assert first is not None
    assert second is not None
    assert 10 >= first > second > 0
    Driver(transport, pool, Deadline(None)).drive(plan())
    assert transport.timeouts[2:] == [None, None]


def test_job_that_outlasts_the_deadline(transport: Transport, pool: ThreadPoolExecutor) -> None:
    gate = threading.Event()

    def plan() -> Plan[None]:
        yield from wait((yield from run(gate.wait)))

    with pytest.raises(DeadlineExceededError, match=r"0\.05 s for preprocessing"):
        Driver(transport, pool, Deadline(0.05)).drive(plan())
    gate.set()


def test_jobs_own_timeout_error_is_not_the_deadlines(transport: Transport, pool: ThreadPoolExecutor) -> None:
    def fail() -> None:
        raise TimeoutError("the job's own")

    def plan() -> Plan[None]:
        yield from wait((yield from run(fail)))

    with pytest.raises(TimeoutError, match="the job's own"):
        Driver(transport, pool, Deadline(10)).drive(plan())


def test_closed_pool_is_connection_failed(transport: Transport, pool: ThreadPoolExecutor) -> None:
    gate = threading.Event()

    def close_while_running() -> Plan[None]:
        yield from run(gate.wait)
        queued = yield from run(int)
        pool.shutdown(wait=False, cancel_futures=True)
        gate.set()
        yield from wait(queued)

    def run_after_close() -> Plan[None]:
        yield from run(int)

    for plan in (close_while_running(), run_after_close()):
        with pytest.raises(ConnectionFailedError, match="closed"):
            Driver(transport, pool, Deadline(10)).drive(plan)
