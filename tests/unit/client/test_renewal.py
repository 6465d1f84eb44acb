"""A server that another one replaces at the same address: requests that it refuses go to the other, once."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from lychee_client._errors import ConnectionFailedError
from lychee_client.transports.base import Ambiguity, ControlRequest, InferRequest, Request, TransportError
from lychee_client.transports.renewal import RenewedTransport

FIRST = InferRequest("encoder", {"ids": np.zeros((1, 2), np.int64)}, (), model_version="7")
SECOND = InferRequest("encoder", {"ids": np.zeros((1, 2), np.int64)}, (), model_version="8")
TIMEOUT_S = 10.0


def refusal(details: str = "queue is full", kind: Ambiguity = Ambiguity.OVERLOADED_OR_GONE) -> TransportError:
    return TransportError(kind, "UNAVAILABLE", details, "id")


class Connection:
    """A transport that answers as `behave` says: a result, or an exception that is raised."""

    def __init__(self, behave: Callable[[Request], Any]) -> None:
        self.behave = behave
        self.sent: list[Request] = []
        self.closed = False

    def send(self, request: Request, timeout_s: float | None) -> Future[Any]:
        self.sent.append(request)
        answer: Future[Any] = Future()
        outcome = self.behave(request)
        if isinstance(outcome, Exception):
            answer.set_exception(outcome)
        elif outcome is not None:
            answer.set_result(outcome)
        return answer

    def close(self, farewell: Request | None = None) -> None:
        self.closed = True


class Address:
    """Makes connections, each with the behaviour that comes next."""

    def __init__(self, *behaviours: Callable[[Request], Any]) -> None:
        self._left = list(behaviours)
        self.made: list[Connection] = []

    def __call__(self) -> Connection:
        self.made.append(Connection(self._left.pop(0)))
        return self.made[-1]


def drained(error: TransportError, *, ready: bool) -> Callable[[Request], Any]:
    """Return the behaviour of a server that answers once, and then refuses."""
    answers = iter(["served"])

    def behave(request: Request) -> Any:
        return {"ready": ready} if isinstance(request, ControlRequest) else next(answers, error)

    return behave


def test_what_a_drained_server_refuses_is_answered_by_the_other_on_a_new_connection() -> None:
    address = Address(drained(refusal(), ready=False), lambda request: "other")
    transport = RenewedTransport(address)
    assert transport.send(FIRST, TIMEOUT_S).result(TIMEOUT_S) == "served"
    assert transport.send(FIRST, TIMEOUT_S).result(TIMEOUT_S) == "other"
    old, new = address.made
    assert [type(request) for request in old.sent] == [InferRequest, InferRequest, ControlRequest]
    assert new.sent == [FIRST]
    ends_at_s = time.monotonic() + TIMEOUT_S
    while not old.closed:
        assert time.monotonic() < ends_at_s
        time.sleep(0.01)
    assert not new.closed


def test_a_full_queue_is_the_callers_to_wait_for() -> None:
    address = Address(drained(refusal(), ready=True))
    transport = RenewedTransport(address)
    transport.send(FIRST, TIMEOUT_S).result(TIMEOUT_S)
    with pytest.raises(TransportError, match="queue is full"):
        transport.send(FIRST, TIMEOUT_S).result(TIMEOUT_S)
    assert len(address.made) == 1


def test_an_unloaded_model_is_told_by_its_word_although_another_server_answers_the_question() -> None:
    gone = refusal("Request for unknown model: 'encoder' version 7 is not at ready state")
    address = Address(drained(gone, ready=True), lambda request: "other")
    transport = RenewedTransport(address)
    transport.send(FIRST, TIMEOUT_S).result(TIMEOUT_S)
    assert transport.send(FIRST, TIMEOUT_S).result(TIMEOUT_S) == "other"


def test_a_model_that_was_never_served_here_is_refused_for_good() -> None:
    address = Address(drained(refusal(kind=Ambiguity.REJECTED_OR_NOT_READY), ready=False))
    transport = RenewedTransport(address)
    assert transport.send(FIRST, TIMEOUT_S).result(TIMEOUT_S) == "served"
    with pytest.raises(TransportError):
        transport.send(SECOND, TIMEOUT_S).result(TIMEOUT_S)
    assert len(address.made) == 1


def test_the_other_is_asked_once() -> None:
    address = Address(drained(refusal(), ready=False), lambda request: refusal("full here too"))
    transport = RenewedTransport(address)
    transport.send(FIRST, TIMEOUT_S).result(TIMEOUT_S)
    with pytest.raises(TransportError, match="full here too"):
        transport.send(FIRST, TIMEOUT_S).result(TIMEOUT_S)
    assert len(address.made) == 2


def test_what_waits_on_the_old_connection_is_answered_there() -> None:
    waiting: list[Future[Any]] = []

    class Slow(Connection):
        def send(self, request: Request, timeout_s: float | None) -> Future[Any]:
            if isinstance(request, InferRequest) and not self.sent:
                self.sent.append(request)
                waiting.append(Future())
                return waiting[0]
            return super().send(request, timeout_s)

    connections = [Slow(drained(refusal(), ready=False)), Connection(lambda request: "other")]
    left = list(connections)
    transport = RenewedTransport(lambda: left.pop(0))
    slow = transport.send(FIRST, TIMEOUT_S)
    assert transport.send(FIRST, TIMEOUT_S).result(TIMEOUT_S) == "served"
    assert transport.send(FIRST, TIMEOUT_S).result(TIMEOUT_S) == "other"
    assert not connections[0].closed
    waiting[0].set_result("late")
    assert slow.result(TIMEOUT_S) == "late"


def test_a_cancelled_request_is_cancelled_where_it_is_and_a_closed_transport_makes_no_more() -> None:
    address = Address(lambda request: None)
    transport = RenewedTransport(address)
    asked = transport.send(FIRST, TIMEOUT_S)
    assert asked.cancel()
    transport.close()
    assert address.made[0].closed
    assert len(address.made) == 1


def test_what_is_lost_on_a_connection_that_was_left_is_sent_again_on_the_new_one() -> None:
    held: list[Request] = []

    def behave(request: Request) -> Any:
        if request is SECOND:
            held.append(request)  # unanswered yet
            return None
        return "served" if not held else refusal("Request for unknown model")

    address = Address(behave, lambda request: "other")
    transport = RenewedTransport(address)
    assert transport.send(FIRST, TIMEOUT_S).result(TIMEOUT_S) == "served"
    old = address.made[0]
    answers: list[Future[Any]] = []
    send = old.send

    def remember(request: Request, timeout_s: float | None) -> Future[Any]:
        answers.append(send(request, timeout_s))
        return answers[-1]

    old.send = remember  # type: ignore[method-assign]
    waiting = transport.send(SECOND, TIMEOUT_S)
    assert transport.send(FIRST, TIMEOUT_S).result(TIMEOUT_S) == "other"
    assert not waiting.done()
    answers[0].set_exception(TransportError(ConnectionFailedError, "UNAVAILABLE", "reset", "id"))
    assert waiting.result(TIMEOUT_S) == "other"
    assert address.made[1].sent == [FIRST, SECOND]
