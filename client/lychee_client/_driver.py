"""Carries out what a call awaits: requests through a transport, jobs in threads, retries and the deadline.

The driver is a generator too. What is left to its caller, a synchronous or an asynchronous client, is to wait.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias, TypeVar

from lychee_client._deadline import Deadline
from lychee_client._diagnosis import diagnose, probe_for
from lychee_client._errors import (
    ConnectionFailedError,
    DeadlineExceededError,
    InferenceError,
    LycheeError,
    ModelNotReadyError,
)
from lychee_client._gateway.refusals import read_refusal
from lychee_client._operations import Ask, Begin, Handle, Note, Operation, Send, Sleep, Stage, Wait
from lychee_client._retry import RetryPolicy
from lychee_client._workers import CallJobs
from lychee_client.tracing.spans import SILENT, RequestTrace, Span, Tracer
from lychee_client.transports.base import ControlRequest, InferRequest, JsonRequest, Request, Transport, TransportError
from lychee_client.transports.verdicts import may_repeat

PROBE_TIMEOUT_S: Final = 2.0
SETTLE_S: Final = 0.01
TIMEOUTS: Final = (TimeoutError, FutureTimeoutError)  # one class from Python 3.11 on
CLOSED: Final = "the client is closed; make a new one"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WaitFor:
    """Wait for a future and answer its result, or throw its exception; a TimeoutError after so many seconds."""

    future: Future[Any]
    timeout_s: float | None


@dataclass(frozen=True, slots=True)
class Pause:
    """Do nothing for so many seconds."""

    duration_s: float


Step: TypeAlias = WaitFor | Pause
Steps: TypeAlias = Generator[Step, Any, T]


class Driver:
    """Drives one call.

    Args:
        transport: Sends the requests.
        url: The server's URL, for messages.
        jobs: Starts the jobs.
        deadline: The deadline of the whole call, retries included.
        retry: When to send a request again.
        request_id: The caller's own id. Requests to Triton get it with a number of theirs; those to a gateway, and
            errors without an id, get it alone. With None each request has an id that its transport makes up.
        answered_at: Gets the time of each model's last answer, by `time.monotonic`.
        tracer: Begins the call's span, which has the coroutine's name; None: it has none.
    """

    def __init__(
        self,
        transport: Transport,
        url: str,
        jobs: CallJobs,
        deadline: Deadline,
        retry: RetryPolicy,
        request_id: str | None = None,
        answered_at: dict[str, float] | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._transport = transport
        self._url = url
        self._call_jobs = jobs
        self._deadline = deadline
        self._retry = retry
        self._request_id = request_id
        self._answered_at = {} if answered_at is None else answered_at
        self._tracer = tracer
        self._span: Span = SILENT
        self._request_number = itertools.count(1)
        self._in_flight: deque[Handle[Any]] = deque()
        self._jobs: set[Future[Any]] = set()

    def drive(self, call: Coroutine[Operation[Any], Any, T]) -> Steps[T]:
        """Return what the call returns. Whatever it has left in flight is cancelled, also when this is closed.

        Raises:
            LycheeError: The call's own error, or one of an operation that the call did not handle.
        """
        if self._tracer is not None:
            self._span = self._tracer.begin(getattr(call, "__name__", "call"))
        with self._span:
            return (yield from self._drive(call))

    def _drive(self, call: Coroutine[Operation[Any], Any, T]) -> Steps[T]:
        try:
            operation = call.send(None)
            while True:
                try:
                    outcome = yield from self._carry_out(operation)
                except LycheeError as error:
                    operation = call.throw(error)
                else:
                    operation = call.send(outcome)
        except StopIteration as stop:
            result: T = stop.value
            return result
        except LycheeError as error:
            error.request_id = error.request_id or self._request_id
            raise
        finally:
            call.close()
            for handle in self._in_flight:
                handle.future.cancel()
            for job in self._jobs:
                job.cancel()

    def _carry_out(self, operation: Operation[Any]) -> Steps[object]:
        if isinstance(operation, Send):
            return (yield from self._send(operation.request, operation.max_rows_in_flight))
        if isinstance(operation, Ask):
            return (yield from self._send(operation.request, None))
        if isinstance(operation, Begin):
            return self._begin(operation)
        if isinstance(operation, Sleep):
            self._deadline.remaining_s(operation.waiting_for)
            yield Pause(self._deadline.at_most(operation.duration_s))
            return None
        if isinstance(operation, Stage):
            return self._span.begin(operation.name) if self._span.is_sampled else SILENT
        if isinstance(operation, Note):
            self._span.add(operation.attributes)
            return None
        assert isinstance(operation, Wait)
        handle = operation.handle
        if handle.request is not None:
            return (yield from self._answer(handle, handle.request))
        self._jobs.discard(handle.future)  # its result may be large
        return (yield from self._wait_for(handle.future, "preprocessing"))

    def _send(self, request: Request, limit: int | None) -> Steps[Handle[Any]]:
        if self._span is not SILENT and not isinstance(request, ControlRequest):
            request = replace(request, trace=RequestTrace(self._span))
        while limit is not None and self._is_full(limit - _rows(request)):
            try:
                yield from self._wait_for(self._in_flight[0].future, _name(request))
            except (TransportError, LycheeError):  # the call will ask for the answer, or the error, itself
                self._deadline.remaining_s(_name(request))
        handle: Handle[Any] = Handle(self._start(request), request)
        self._in_flight.append(handle)
        return handle

    def _is_full(self, room: int) -> bool:
        """Say whether requests are unanswered, and have more than `room` rows."""
        while self._in_flight and self._in_flight[0].future.done():
            self._in_flight.popleft()
        rows = sum(_rows(handle.request) for handle in self._in_flight if not handle.future.done())
        return bool(self._in_flight) and rows > room

    def _start(self, request: Request) -> Future[Any]:
        return self._transport.send(self._stamp(request), self._deadline.remaining_s(_name(request)))

    def _stamp(self, request: Request) -> Request:
        """Return the request under an id of its own, where the caller gave one to the call."""
        if self._request_id is None:
            return request
        if isinstance(request, JsonRequest):
            return replace(request, request_id=self._request_id)
        return replace(request, request_id=f"{self._request_id}/{next(self._request_number)}")

    def _start_again(self, handle: Handle[Any]) -> None:
        assert handle.request is not None
        handle.future = self._start(handle.request)
        if all(other is not handle for other in self._in_flight):
            self._in_flight.append(handle)

    def _begin(self, operation: Begin[Any]) -> Handle[Any]:
        try:
            job = self._call_jobs.begin(self._trace_job(operation), operation.weigh)
        except RuntimeError as error:  # the pool was shut down
            raise ConnectionFailedError(CLOSED) from error
        self._jobs.add(job)
        return Handle(job)

    def _trace_job(self, operation: Begin[T]) -> Callable[[], T]:
        """Return the job, which has a span of its own where it shall and anybody will see it."""
        if not operation.name or not self._span.is_sampled:
            return operation.job

        def run() -> T:
            with self._span.begin(operation.name):
                return operation.job()

        return run

    def _answer(self, handle: Handle[Any], request: Request) -> Steps[object]:
        """Wait for the answer; send the request again where that may help."""
        retries = 0
        while True:
            try:
                answer = yield from self._wait_for(handle.future, _name(request))
                if isinstance(request, InferRequest):
                    self._answered_at[request.model_name] = time.monotonic()
                return answer
            except DeadlineExceededError as late:
                late.model_name = _name(request)
                raise
            except TransportError as failure:
                if failure.shared_memory and isinstance(request, InferRequest):  # the server may have been restarted
                    handle.request = request = replace(request, inline=True)
                    self._start_again(handle)
                    continue
                error = yield from self._diagnose(failure, request)
                pause_s = self._retry.pause_s(retries) if _may_pass(error, request, failure) else None
                if pause_s is not None and failure.response is not None:
                    pause_s = max(pause_s, failure.response.retry_after_s)
                if pause_s is None or not self._deadline.leaves(pause_s):
                    raise error from failure
            yield Pause(pause_s)
            retries += 1
            self._start_again(handle)

    def _diagnose(self, failure: TransportError, request: Request) -> Steps[LycheeError]:
        if failure.response is not None:
            return read_refusal(failure.response, self._url, failure.request_id)
        if failure.kind is DeadlineExceededError or not self._deadline.leaves(0.0):
            error = self._deadline.exceeded(_name(request))
            error.model_name, error.request_id = _name(request), failure.request_id
            return error
        if failure.is_connected is not None:
            yield Pause(self._deadline.at_most(SETTLE_S))  # a transport notices a moment after the failure
            if not failure.is_connected():
                failure.kind = ConnectionFailedError
        version = "" if isinstance(request, JsonRequest) else request.model_version
        probe = probe_for(failure, _name(request), version)
        passed = False
        if probe is not None:
            try:
                timeout_s = self._deadline.at_most(PROBE_TIMEOUT_S)
                answer = yield WaitFor(self._transport.send(self._stamp(probe), timeout_s), timeout_s)
                passed = bool(answer["ready"])
            except (TransportError, LycheeError, CancelledError, *TIMEOUTS):
                passed = False
        return diagnose(failure, passed, _name(request), self._url)

    def _wait_for(self, future: Future[T], waiting_for: str) -> Steps[T]:
        try:
            result: T = yield WaitFor(future, self._deadline.remaining_s(waiting_for))
        except CancelledError as error:
            raise ConnectionFailedError(CLOSED) from error
        except TIMEOUTS as error:
            own = future.exception() if future.done() and not future.cancelled() else None
            if isinstance(own, TimeoutError):  # the job's
                raise
            raise self._deadline.exceeded(waiting_for) from error
        return result


def _may_pass(error: LycheeError, request: Request, failure: TransportError) -> bool:
    """Say whether the same request may succeed a little later: a model may be short of memory, or be replaced.

    A batch that failed is not sent again as it is: smaller ones tell more.
    """
    if not may_repeat(request, failure):
        return False
    if isinstance(error, InferenceError):
        return _rows(request) == 1
    return error.retryable or isinstance(error, ModelNotReadyError)


def _name(request: Request) -> str:
    if isinstance(request, InferRequest):
        return request.model_name
    return f"{request.method} {request.path}" if isinstance(request, JsonRequest) else request.name or request.action


def _rows(request: Request | None) -> int:
    return request.rows if isinstance(request, InferRequest) else 1
