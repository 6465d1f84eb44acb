"""The language between the pure pipelines and the driver that carries them out.

A plan is a generator: it yields operations, receives their outcome, and returns the result of the whole call. It
reads and sends nothing itself, so the same plan serves every client and every transport.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar, cast

from lychee_client.transports.base import ControlRequest, InferRequest, InferResponse, Request

T = TypeVar("T")


@dataclass(slots=True)
class Handle(Generic[T]):
    """Work that has been started. Plans do not look inside.

    Attributes:
        future: Its outcome.
        request: What was sent; None for a job.
    """

    future: Future[T]
    request: Request | None = None

    @property
    def is_done(self) -> bool:
        """Whether waiting for it takes no time, unless it failed and is tried again."""
        return self.future.done()


@dataclass(frozen=True, slots=True)
class Send:
    """Start a request. Outcome: a handle.

    Attributes:
        request: What to send.
        max_rows_in_flight: Wait until no more rows than this, this request's included, are unanswered, or none are.
            None does not wait.
    """

    request: Request
    max_rows_in_flight: int | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """Start work that would block: decoding, tokenizing, the disk. Outcome: a handle."""

    job: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait for a handle. Outcome: its result; or its exception, thrown into the plan."""

    handle: Handle[Any]


@dataclass(frozen=True, slots=True)
class Sleep:
    """Do nothing for a while. Outcome: None.

    Attributes:
        duration_s: At most so long; less if the deadline is nearer.
        waiting_for: For the message when the deadline has passed.
    """

    duration_s: float
    waiting_for: str


Operation: TypeAlias = Send | Run | Wait | Sleep
Plan: TypeAlias = Generator[Operation, Any, T]


def send(request: InferRequest, max_rows_in_flight: int | None = None) -> Plan[Handle[InferResponse]]:
    """Yield Send, typed."""
    return cast(Handle[InferResponse], (yield Send(request, max_rows_in_flight)))


def control(request: ControlRequest) -> Plan[dict[str, Any]]:
    """Send, and wait for the JSON object that answers."""
    handle = yield Send(request)
    return cast(dict[str, Any], (yield Wait(handle)))


def run(job: Callable[[], T]) -> Plan[Handle[T]]:
    """Yield Run, typed."""
    return cast(Handle[T], (yield Run(job)))


def wait(handle: Handle[T]) -> Plan[T]:
    """Yield Wait, typed."""
    return cast(T, (yield Wait(handle)))


def sleep(duration_s: float, waiting_for: str) -> Plan[None]:
    """Yield Sleep, typed."""
    yield Sleep(duration_s, waiting_for)
