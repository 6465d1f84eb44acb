"""A server that is replaced by another at the same address: whose connections take no more requests gets new ones.

An upgrade without a gap has two servers listen on one port for a moment. New connections lead to the new one. The old
one answers what it has begun, refuses everything else by unloading its models, and ends.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from functools import partial
from typing import Any, Final

from lychee_client._errors import ConnectionFailedError
from lychee_client.transports.base import Ambiguity, ControlRequest, InferRequest, Request, Transport, TransportError
from lychee_client.transports.care import outcome_of

__all__ = ["RenewedTransport"]

_LEAST_TIMEOUT_S: Final = 1e-3
_QUESTION_S: Final = 2.0
# Triton's word for a model that it has unloaded. The next question may reach another server, which has it.
_UNLOADED: Final = "unknown model"
_REFUSALS: Final = (Ambiguity.REJECTED_OR_NOT_READY, Ambiguity.OVERLOADED_OR_GONE)


class RenewedTransport:
    """One address. See Transport.

    A request of a model that this connection has served, and that the server now says it does not serve, is sent again
    on a new connection, once: the new one has served nothing yet.

    Args:
        make: Makes a transport to the address; it does no network before its first request.
    """

    def __init__(self, make: Callable[[], Transport]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._current = make()
        self._served: set[str] = set()  # versions of models, by the current connection
        self._flying: Counter[Transport] = Counter()
        self._closed = False

    def send(self, request: Request, timeout_s: float | None) -> Future[Any]:
        """See Transport."""
        asked = _Asked(request, None if timeout_s is None else time.monotonic() + timeout_s)
        self._launch(asked)
        return asked

    def close(self, farewell: Request | None = None) -> None:
        """See Transport."""
        with self._lock:
            self._closed = True
            left = [transport for transport in self._flying if transport is not self._current]
        for transport in left:
            transport.close()
        self._current.close(farewell)

    def _launch(self, asked: _Asked) -> None:
        with self._lock:
            transport = self._current
            self._flying[transport] += 1
        timeout_s = None if asked.ends_at_s is None else max(_LEAST_TIMEOUT_S, asked.ends_at_s - time.monotonic())
        asked.inner = inner = transport.send(asked.request, timeout_s)
        inner.add_done_callback(partial(self._land, asked, transport))
        if asked.cancelled():
            inner.cancel()

    def _land(self, asked: _Asked, transport: Transport, inner: Future[Any]) -> None:
        outcome = outcome_of(inner)
        version = _version_of(asked.request)
        with self._lock:
            is_current = transport is self._current
            if isinstance(asked.request, InferRequest) and is_current and not isinstance(outcome, BaseException):
                self._served.add(version)
            has_served = version in self._served or (not version and bool(self._served))
            may_move = not self._closed and not asked.moved and (not is_current or has_served)
        if may_move and not asked.done() and not is_current and _is_loss(asked.request, outcome):
            self._move(asked, transport)  # it was left, and has ended meanwhile
        elif may_move and not asked.done() and _is_refusal(outcome):
            self._look_behind(asked, transport, outcome)
        else:
            asked.settle(outcome)
        self._put_down(transport)

    def _look_behind(self, asked: _Asked, transport: Transport, outcome: object) -> None:
        """Find out whether the server takes no more requests of the model, and go to another one if so."""
        request = asked.request
        unloaded = isinstance(outcome, TransportError) and _UNLOADED in outcome.details
        if unloaded or not isinstance(request, InferRequest):
            self._move(asked, transport)
            return

        def take(future: Future[Any]) -> None:
            answer = outcome_of(future)
            if isinstance(answer, dict) and answer.get("ready") is False:
                self._move(asked, transport)
            else:
                asked.settle(outcome)

        question = ControlRequest("model_ready", request.model_name, model_version=request.model_version)
        transport.send(question, _QUESTION_S).add_done_callback(take)

    def _move(self, asked: _Asked, transport: Transport) -> None:
        with self._lock:
            if transport is self._current and not self._closed:
                self._flying[transport] += 1
                self._current = self._make()
                self._served.clear()
                left = True
            else:
                left = False
        asked.moved = True
        self._launch(asked)
        if left:
            self._put_down(transport)

    def _put_down(self, transport: Transport) -> None:
        """Count a request less, and close a connection that was left and has nothing to answer any more."""
        with self._lock:
            self._flying[transport] -= 1
            unused = not self._flying[transport]
            if unused:
                del self._flying[transport]
            done = unused and transport is not self._current
        if done:  # in a thread of its own: this one may be the connection's
            threading.Thread(target=transport.close, name="lychee-close", daemon=True).start()


class _Asked(Future[Any]):
    """A request for its caller, on whatever connection.

    Attributes:
        request: The request.
        ends_at_s: When its time is over; None: never.
        inner: It, on its connection.
        moved: Whether it was sent again.
    """

    def __init__(self, request: Request, ends_at_s: float | None) -> None:
        super().__init__()
        self.request = request
        self.ends_at_s = ends_at_s
        self.inner: Future[Any] | None = None
        self.moved = False

    def cancel(self) -> bool:
        """See Future."""
        cancelled = super().cancel()
        if cancelled and self.inner is not None:
            self.inner.cancel()
        return cancelled

    def settle(self, outcome: object) -> None:
        """Give the caller the result or the exception; None: it was given up."""
        with suppress(InvalidStateError):  # cancelled
            if outcome is None:
                super().cancel()
            elif isinstance(outcome, BaseException):
                self.set_exception(outcome)
            else:
                self.set_result(outcome)


def _version_of(request: Request) -> str:
    return request.model_version if isinstance(request, InferRequest | ControlRequest) else ""


def _is_refusal(outcome: object) -> bool:
    if isinstance(outcome, TransportError):
        return outcome.kind in _REFUSALS and outcome.response is None
    return isinstance(outcome, dict) and outcome.get("ready") is False


def _is_loss(request: Request, outcome: object) -> bool:
    """Say whether the connection broke under a request that may be sent twice."""
    lost = isinstance(outcome, TransportError) and outcome.kind is ConnectionFailedError
    return lost and isinstance(request, InferRequest | ControlRequest)
