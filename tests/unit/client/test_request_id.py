"""A call's own id: on every request, and on every error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from fakes.dual_encoder import FakeTransport
from lychee_client import (
    AsyncLycheeClient,
    ConfigurationError,
    ConnectionFailedError,
    DeadlineExceededError,
    InferenceError,
    InvalidInputError,
    LycheeClient,
)
from lychee_client.transports.base import InferRequest, Request, TransportError

Call = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Call:
    """Call a method of a client on a transport."""

    def synchronous(transport: FakeTransport, method: str, *arguments: Any, **options: Any) -> Any:
        with LycheeClient(transport=transport, max_retries=1) as client:
            return getattr(client, method)(*arguments, **options)

    async def asynchronous(transport: FakeTransport, method: str, *arguments: Any, **options: Any) -> Any:
        async with AsyncLycheeClient(transport=transport, max_retries=1) as client:
            return await getattr(client, method)(*arguments, **options)

    if request.param == "sync":
        return synchronous
    return lambda *arguments, **options: asyncio.run(asynchronous(*arguments, **options))


def ids_of(transport: FakeTransport) -> list[str | None]:
    return [request.request_id for request in transport.requests]


def test_every_request_of_a_call_has_its_id_and_a_number(call: Call) -> None:
    transport = FakeTransport()
    call(transport, "rerank", "q", ["a", "b" * 30], server_timings=True, request_id="call-7")
    assert len(transport.requests) > 5
    assert ids_of(transport) == [f"call-7/{number}" for number in range(1, len(transport.requests) + 1)]


def test_without_an_id_the_transport_makes_them_up(call: Call) -> None:
    for options in ({}, {"request_id": None}):
        transport = FakeTransport()
        call(transport, "rerank", "q", ["a"], **options)
        assert set(ids_of(transport)) == {None}


def test_request_that_is_sent_again_gets_another_number(call: Call) -> None:
    failures = iter([TransportError(ConnectionFailedError, None, "lost", "id")])

    def fail_once(request: Request) -> None:
        if isinstance(request, InferRequest) and request.model_name == "scoring_head_text":
            for failure in failures:
                raise failure

    transport = FakeTransport(fail_once)
    call(transport, "rerank", "q", ["a"], request_id="again")
    assert len(set(ids_of(transport))) == len(transport.requests)
    sent = [request for request in transport.requests if isinstance(request, InferRequest)]
    assert [request.model_name for request in sent[-2:]] == ["scoring_head_text"] * 2


def test_error_of_a_request_names_the_request(call: Call) -> None:
    def fail(request: Request) -> None:
        if isinstance(request, InferRequest) and request.model_name == "text_encoder":
            raise TransportError(InferenceError, "INTERNAL", "broken", request.request_id or "none")

    transport = FakeTransport(fail)
    with pytest.raises(InferenceError) as caught:
        call(transport, "rerank", "q", ["a"], request_id="mine")
    (failed,) = [request for request in transport.requests if request.request_id == caught.value.request_id]
    assert isinstance(failed, InferRequest)
    assert failed.rows == 1  # the query's, sent again alone


@pytest.mark.parametrize(
    ("kind", "arguments", "options"),
    [
        (InvalidInputError, ("rerank", "", ["a"]), {}),
        (InvalidInputError, ("score", "q", " "), {}),
        (ConfigurationError, ("rerank", "q", ["a"]), {"top_n": 0}),
        (DeadlineExceededError, ("rerank", "q", ["a"]), {"timeout_s": 1e-9}),
    ],
)
def test_error_without_a_request_names_the_call(
    call: Call, kind: type[Exception], arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    with pytest.raises(kind) as caught:
        call(FakeTransport(), *arguments, **options, request_id="mine")
    assert caught.value.request_id == "mine"


def test_closed_client_names_the_call() -> None:
    client = LycheeClient(transport=FakeTransport())
    client.close()
    with pytest.raises(ConnectionFailedError) as caught:
        client.rerank("q", ["a"], request_id="mine")
    assert caught.value.request_id == "mine"


@pytest.mark.parametrize("request_id", ["", "two words", "x" * 129, "编号", "line\nbreak", b"bytes", 7])
def test_id_that_cannot_travel_is_refused(call: Call, request_id: object) -> None:
    transport = FakeTransport()
    with pytest.raises(ConfigurationError, match="request_id"):
        call(transport, "rerank", "q", ["a"], request_id=request_id)
    assert transport.requests == []


def test_longest_id_is_taken(call: Call) -> None:
    transport = FakeTransport()
    call(transport, "rerank", "q", ["a"], request_id="~" * 128)
    assert ids_of(transport)[-1] == "~" * 128 + f"/{len(transport.requests)}"
