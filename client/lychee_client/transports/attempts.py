"""One request for its caller, and the replicas that it is sent to."""

from __future__ import annotations

from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any

from lychee_client.transports.base import InferRequest, Request
from lychee_client.transports.replica import Replica, kind_of


class Attempt:
    """A request at one replica.

    Attributes:
        flight: What it is an attempt of.
        replica: The replica.
        transport: The replica's transport; the replica may get another one.
        began_at_s: When it was sent.
        measures: Whether it was sent to see how fast the replica is now, and nobody waits for it.
    """

    __slots__ = ("began_at_s", "flight", "measures", "replica", "transport")

    def __init__(self, flight: Flight, replica: Replica, began_at_s: float, *, measures: bool) -> None:
        self.flight = flight
        self.replica = replica
        self.transport = replica.transport
        self.began_at_s = began_at_s
        self.measures = measures


class Flight(Future[Any]):
    """One request for its caller, wherever it is sent.

    Attributes:
        request: The request.
        ends_at_s: When its time is over; None: never.
        kind: See `kind_of`.
        model: Name and version of its model; None where it asks for none.
        tried: The replicas that it was sent to.
        attempts: What is under way.
        failure: What to tell the caller if no replica answers: rather what a server said than that none was there.
        is_lost: Whether `failure` says only that no server was there.
        failed_at: The replica that failed to compute it; None while none did.
    """

    def __init__(self, request: Request, ends_at_s: float | None) -> None:
        super().__init__()
        self.request = request
        self.ends_at_s = ends_at_s
        self.kind = kind_of(request)
        self.model = (request.model_name, request.model_version) if isinstance(request, InferRequest) else None
        self.tried: set[Replica] = set()
        self.attempts: dict[Attempt, Future[Any] | None] = {}
        self.failure: object = None
        self.is_lost = True
        self.failed_at: Replica | None = None

    @property
    def is_hedged(self) -> bool:
        """Whether the caller waits for several replicas."""
        return sum(not attempt.measures for attempt in self.attempts) > 1

    def cancel(self) -> bool:
        """See Future."""
        cancelled = super().cancel()
        if cancelled:
            self._give_up(everything=True)
        return cancelled

    def settle(self, outcome: object) -> None:
        """Give the caller the answer or the exception, and wait no longer for another one."""
        with suppress(InvalidStateError):  # cancelled
            if isinstance(outcome, BaseException):
                self.set_exception(outcome)
            else:
                self.set_result(outcome)
        self._give_up(everything=False)

    def _give_up(self, *, everything: bool) -> None:
        for attempt, future in list(self.attempts.items()):
            if future is not None and (everything or not attempt.measures):
                future.cancel()
