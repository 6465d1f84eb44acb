"""Carries out plans synchronously: requests through a transport, jobs in threads."""

from __future__ import annotations

import concurrent.futures
from collections import deque
from typing import Any, Final, TypeVar

from lychee_client._deadline import Deadline
from lychee_client._errors import ConnectionFailedError, LycheeError
from lychee_client._plan import Handle, Operation, Plan, Run, Send
from lychee_client._transports.base import InferRequest, PendingResponse, Transport

# Enough to fill the server's largest batches twice; more would only hold memory.
MAX_IN_FLIGHT: Final = 32

T = TypeVar("T")


class Driver:
    """Drives one plan.

    Args:
        transport: Sends the requests.
        pool: Runs the jobs.
        deadline: Of the whole plan.
    """

    def __init__(self, transport: Transport, pool: concurrent.futures.Executor, deadline: Deadline) -> None:
        self._transport = transport
        self._pool = pool
        self._deadline = deadline
        self._in_flight: deque[PendingResponse] = deque()
        self._jobs: set[concurrent.futures.Future[object]] = set()

    def drive(self, plan: Plan[T]) -> T:
        """Return what the plan returns. Whatever it has left in flight is cancelled.

        Raises:
            LycheeError: The plan's own error, or one of an operation that the plan did not handle.
        """
        try:
            operation = next(plan)
            while True:
                try:
                    outcome = self._carry_out(operation)
                except LycheeError as error:
                    operation = plan.throw(error)
                else:
                    operation = plan.send(outcome)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            for pending in self._in_flight:
                pending.cancel()
            for job in self._jobs:
                job.cancel()

    def _carry_out(self, operation: Operation) -> object:
        if isinstance(operation, Send):
            return self._send(operation.request)
        if isinstance(operation, Run):
            return self._run(operation)
        future: Any = operation.handle.future
        if isinstance(future, concurrent.futures.Future):
            return self._wait_for_job(future)
        return future.result()

    def _send(self, request: InferRequest) -> Handle[Any]:
        if len(self._in_flight) >= MAX_IN_FLIGHT:
            self._settle(self._in_flight.popleft())
        pending = self._transport.send(request, self._deadline.remaining_s(request.model_name))
        self._in_flight.append(pending)
        return Handle(pending)

    def _settle(self, pending: PendingResponse) -> None:
        """Wait until a request is answered; the plan will ask for the answer, or the error, itself."""
        try:
            pending.result()
        except LycheeError:
            return

    def _run(self, operation: Run) -> Handle[Any]:
        try:
            job = self._pool.submit(operation.job)
        except RuntimeError as error:  # the pool was shut down
            raise ConnectionFailedError("the client was closed during the call; make a new one") from error
        self._jobs.add(job)
        return Handle(job)

    def _wait_for_job(self, job: concurrent.futures.Future[object]) -> object:
        self._jobs.discard(job)  # its result may be large
        try:
            return job.result(self._deadline.remaining_s("preprocessing"))
        except concurrent.futures.CancelledError as error:
            raise ConnectionFailedError("the client was closed during the call; make a new one") from error
        except TimeoutError as error:
            if job.done():
                raise
            raise self._deadline.exceeded("preprocessing") from error
