"""What a call awaits: requests, jobs in threads, pauses.

A call of the client is one coroutine, written once for both clients and all transports. It does no input or output
itself: it awaits the operations below, and the Driver carries them out and sends their outcome back into it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from lychee_client.tracing.spans import Attributes, Span
from lychee_client.transports.base import (
    ControlRequest,
    InferRequest,
    InferResponse,
    JsonRequest,
    JsonResponse,
    Request,
)

# The names of spans.
DECODE: Final = "decode"
TOKENIZE: Final = "tokenize"
RANK: Final = "rank"

T = TypeVar("T")


@dataclass(slots=True)
class Handle(Generic[T]):
    """Work that has been started. Calls do not look inside.

    Attributes:
        future: The outcome of the work.
        request: What was sent; None for a job.
    """

    future: Future[T]
    request: Request | None = None

    @property
    def is_done(self) -> bool:
        """Whether waiting for it takes no time, unless it failed and is tried again."""
        return self.future.done()


class Operation(Generic[T]):
    """Something that a call awaits; T is its outcome."""

    def __await__(self) -> Generator[Operation[Any], Any, T]:
        outcome: T = yield self
        return outcome


@dataclass(frozen=True)
class Send(Operation[Handle[InferResponse]]):
    """Send a request, and go on with a handle before the answer is there.

    Attributes:
        request: What to send.
        max_rows_in_flight: Wait until no more rows than this, this request's included, are unanswered, or none are.
            None does not wait.
    """

    request: InferRequest
    max_rows_in_flight: int | None = None


@dataclass(frozen=True)
class Ask(Operation[Handle[Any]]):
    """Send a question about the server itself, or to a gateway, and go on with a handle before the answer is there."""

    request: ControlRequest | JsonRequest


@dataclass(frozen=True)
class Begin(Operation[Handle[T]]):
    """Start a job that would block (decoding, tokenizing, the disk) in a thread, and go on with a handle.

    Attributes:
        job: The work.
        weigh: Returns how many bytes the job takes, where it decodes an image and so waits for its turn. None: the job
            is a short one.
        name: The name of its span, where the call is traced; empty: it has none.
    """

    job: Callable[[], T]
    weigh: Callable[[], int] | None = None
    name: str = ""


@dataclass(frozen=True)
class Wait(Operation[T]):
    """Wait for the outcome of a handle; its error is raised."""

    handle: Handle[T]


@dataclass(frozen=True)
class Sleep(Operation[None]):
    """Do nothing for a while.

    Attributes:
        duration_s: How long at most; less if the deadline is nearer.
        waiting_for: What the message names when the deadline has passed.
    """

    duration_s: float
    waiting_for: str


@dataclass(frozen=True)
class Stage(Operation[Span]):
    """Begin the span of a part of the call that computes at once. Whoever gets it ends it, by `with`.

    Attributes:
        name: The name of the span.
    """

    name: str


@dataclass(frozen=True)
class Note(Operation[None]):
    """Tell more of the call in its span.

    Attributes:
        attributes: See Span.
    """

    attributes: Attributes


async def ask(request: ControlRequest) -> dict[str, Any]:
    """Send a question about the server itself, and return the JSON object that answers."""
    answer: dict[str, Any] = await Wait(await Ask(request))
    return answer


async def exchange(request: JsonRequest) -> JsonResponse:
    """Send a request to a gateway, and return its answer."""
    answer: JsonResponse = await Wait(await Ask(request))
    return answer


async def in_thread(job: Callable[[], T], weigh: Callable[[], int] | None = None, name: str = "") -> T:
    """Run a job in a thread, and return its result; see Begin."""
    return await Wait(await Begin(job, weigh, name))
