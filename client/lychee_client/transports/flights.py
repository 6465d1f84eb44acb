"""What a transport has at the server. What nobody waits for any more flies on, and makes new requests wait.

Triton 2.51 computes an HTTP request to its end, whoever hangs up, and may die of a gRPC call that is cancelled. So an
impatient caller gives up its answer and not the request. Else such callers would pile up work without a limit.
"""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from functools import partial
from typing import Any, Final

from lychee_client._errors import ConnectionFailedError
from lychee_client.transports.base import Request, TransportError

MAX_ABANDONED: Final = 16
LINGER_S: Final = 60.0  # a server that is stuck must not keep out new requests for ever
_LEAST_TIMEOUT_S: Final = 1e-3


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


Begin = Callable[[Request, str, float | None, Answer], None]


class Flights:
    """The requests of one transport. Safe to use from several threads.

    A request that is begun has to `land`, whatever becomes of it. While MAX_ABANDONED that nobody waits for have not
    landed, no other begins; one counts for LINGER_S at most.

    Args:
        begin: Sends a request, under an id, for at most so many seconds (None: for ever), for the caller of an answer.
        may_cut: Says whether the server survives a request that is cut.
    """

    def __init__(self, begin: Begin, may_cut: Callable[[], bool]) -> None:
        self._begin_request = begin
        self._may_cut = may_cut
        self._request_prefix = secrets.token_hex(4)
        self._request_number = itertools.count(1)
        self._lock = threading.Lock()
        self._waiting: dict[Answer, Callable[[Answer], None]] = {}
        self._flying: set[Answer] = set()
        self._abandoned: dict[Answer, float] = {}  # and since when
        self._on_empty: Callable[[], None] | None = None

    @property
    def count(self) -> int:
        """How many requests are at the server."""
        return len(self._flying)

    def send(self, request: Request, timeout_s: float | None) -> Answer:
        """Begin a request, now or when there is room; see Transport."""
        request_id = request.request_id or f"{self._request_prefix}-{next(self._request_number)}"
        ends_at_s = None if timeout_s is None else time.monotonic() + timeout_s
        begin = partial(self._begin_in_time, request, request_id, ends_at_s)
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

    def close(self, disconnect: Callable[[], None], farewell: Request | None = None) -> None:
        """Take no more requests, give up all answers, and call a function once nothing is at the server.

        Args:
            disconnect: The function.
            farewell: One more request, which is sent once all others have landed.
        """
        on_empty = disconnect if farewell is None else partial(self._send_last, farewell, disconnect)
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

    def _send_last(self, request: Request, disconnect: Callable[[], None]) -> None:
        answer = Answer(self)
        with self._lock:
            self._flying.add(answer)
            self._on_empty = disconnect
        self._begin(partial(self._begin_in_time, request, "farewell", None), answer)

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

    def _begin_in_time(self, request: Request, request_id: str, ends_at_s: float | None, answer: Answer) -> None:
        timeout_s = None if ends_at_s is None else max(_LEAST_TIMEOUT_S, ends_at_s - time.monotonic())
        self._begin_request(request, request_id, timeout_s, answer)

    def _begin(self, begin: Callable[[Answer], None], answer: Answer) -> None:
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
