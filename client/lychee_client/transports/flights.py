"""What a transport has at the server. What nobody waits for any more flies on, and makes new requests wait.

Triton 2.51 computes an HTTP request to its end, whoever hangs up, and may die of a gRPC call that is cancelled. So an
impatient caller gives up its answer and not the request. Else such callers would pile up work without a limit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import Any, Final

from lychee_client._errors import ConnectionFailedError
from lychee_client.transports.base import TransportError

MAX_ABANDONED: Final = 16
LINGER_S: Final = 60.0  # a server that is stuck must not keep out new requests for ever


class Answer(Future[Any]):
    """The outcome of one request, for its caller. Cancelling it is the caller's end of waiting.

    Attributes:
        cut: Ends the request at the server too; None before it is there, and where the transport cannot.
    """

    def __init__(self, flights: Flights) -> None:
        super().__init__()
        self.cut: Callable[[], object] | None = None
        self._flights = flights

    def cancel(self) -> bool:
        """See Future."""
        cancelled = super().cancel()
        if cancelled:
            self._flights.abandon(self)
        return cancelled

    def settle(self, outcome: object) -> None:
        """Take the result or, if it is one, the exception. One that was cancelled drops it."""
        try:
            if isinstance(outcome, BaseException):
                self.set_exception(outcome)
            else:
                self.set_result(outcome)
        except InvalidStateError:
            return


Begin = Callable[[Answer], None]


class Flights:
    """The requests of one transport. Safe to use from several threads.

    A request that is begun has to `land`, whatever becomes of it. While MAX_ABANDONED that nobody waits for have not
    landed, no other begins; one counts for LINGER_S at most.

    Args:
        may_cut: Says whether the server survives a request that is cut.
    """

    def __init__(self, may_cut: Callable[[], bool]) -> None:
        self._may_cut = may_cut
        self._lock = threading.Lock()
        self._waiting: dict[Answer, Begin] = {}
        self._flying: set[Answer] = set()
        self._abandoned: dict[Answer, float] = {}  # and since when
        self._on_empty: Callable[[], None] | None = None

    @property
    def count(self) -> int:
        """How many requests are at the server."""
        return len(self._flying)

    def send(self, begin: Begin, request_id: str) -> Answer:
        """Begin a request, now or when there is room.

        Args:
            begin: Sends it.
            request_id: What the error names if this is closed.
        """
        answer = Answer(self)
        with self._lock:
            closed = self._on_empty is not None
            if not closed:
                self._waiting[answer] = begin
        if closed:
            answer.settle(TransportError(ConnectionFailedError, None, "connection closed", request_id))
        else:
            self._advance()
        return answer

    def land(self, answer: Answer, outcome: object) -> None:
        """Take what became of a request: its result, or an exception."""
        with self._lock:
            self._flying.discard(answer)
            self._abandoned.pop(answer, None)
            on_empty = None if self._flying else self._on_empty
        answer.settle(outcome)
        self._advance()
        if on_empty is not None:
            on_empty()

    def abandon(self, answer: Answer) -> None:
        """Note that nobody waits for an answer any more."""
        with self._lock:
            self._waiting.pop(answer, None)
            if answer in self._flying:
                self._abandoned[answer] = time.monotonic()
        self._cut(answer)

    def close(self, on_empty: Callable[[], None]) -> None:
        """Take no more requests, give up all answers, and call a function once nothing is at the server."""
        with self._lock:
            if self._on_empty is not None:
                return
            self._on_empty = on_empty
            answers = [*self._waiting, *self._flying]
            empty = not self._flying
        for answer in answers:
            answer.cancel()
        if empty:
            on_empty()

    def send_last(self, begin: Begin, on_empty: Callable[[], None]) -> None:
        """Begin one more request after all others have landed and this was closed."""
        answer = Answer(self)
        with self._lock:
            self._flying.add(answer)
            self._on_empty = on_empty
        self._begin(begin, answer)

    def _advance(self) -> None:
        while True:
            with self._lock:
                if not self._waiting or self._is_crowded():
                    return
                answer = next(iter(self._waiting))
                begin = self._waiting.pop(answer)
                self._flying.add(answer)
            self._begin(begin, answer)
            if answer.cancelled():  # before it could be cut
                self._cut(answer)

    def _begin(self, begin: Begin, answer: Answer) -> None:
        try:
            begin(answer)
        except Exception as error:  # whoever waits for it gets it, not whoever made room
            self.land(answer, error)

    def _is_crowded(self) -> bool:
        while self._abandoned:
            answer, since_s = next(iter(self._abandoned.items()))
            if time.monotonic() - since_s < LINGER_S:
                break
            del self._abandoned[answer]
        return len(self._abandoned) >= MAX_ABANDONED

    def _cut(self, answer: Answer) -> None:
        if answer.cut is not None and self._may_cut():
            answer.cut()
