"""A span for every time that a request of a traced call is sent, and what servers are told of it."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from lychee_client import ConnectionFailedError
from lychee_client.tracing.spans import GIVEN_UP, NOTHING, SILENT, Attributes, Kind, RequestTrace, SilentSpan, Span
from lychee_client.transports.addresses import Address
from lychee_client.transports.base import ControlRequest, InferRequest, JsonRequest, Request, TransportError
from lychee_client.transports.traced import TracedTransport

INFER = InferRequest("text_encoder", {"input_ids": np.zeros((2, 3), np.int64)}, (), model_version="7")
JSON = JsonRequest("POST", "/v1/rerank", {})


class RecordingSpan(SilentSpan):
    """Keeps what it is told."""

    is_sampled = True  # type: ignore[misc]

    def __init__(self, name: str, kind: Kind, attributes: Attributes) -> None:
        self.name, self.kind, self.attributes = name, kind, dict(attributes)
        self.error: str | None = None
        self.ended = 0
        self.parts: list[RecordingSpan] = []

    def begin(self, name: str, kind: Kind = "internal", attributes: Attributes = NOTHING) -> Span:
        self.parts.append(RecordingSpan(name, kind, attributes))
        return self.parts[-1]

    def add(self, attributes: Attributes) -> None:
        self.attributes |= attributes

    def fail(self, error: str) -> None:
        self.error = error

    def end(self) -> None:
        self.ended += 1

    def headers(self) -> Mapping[str, str]:
        return {"traceparent": self.name}


class UnsampledSpan(SilentSpan):
    """A span of a trace that nobody samples: the gateway has to hear of it, and Triton not."""

    def headers(self) -> Mapping[str, str]:
        return {"traceparent": "unsampled"}


class Wire:
    """A transport that keeps requests and answers as it was told."""

    def __init__(self) -> None:
        self.sent: list[Request] = []
        self.answer: Future[Any] = Future()

    def send(self, request: Request, timeout_s: float | None) -> Future[Any]:
        self.sent.append(request)
        return self.answer

    def close(self, farewell: Request | None = None) -> None:
        """Do nothing."""


def send(request: Any, span: Span, wire: Wire, times: int = 1) -> None:
    trace = RequestTrace(span)
    transport = TracedTransport(wire, Address("triton:8001"), is_grpc=True)
    for _ in range(times):
        transport.send(_with(request, trace), None)


def _with(request: Any, trace: RequestTrace) -> Any:
    return type(request)(**{**{name: getattr(request, name) for name in request.__dataclass_fields__}, "trace": trace})


def test_every_attempt_is_a_span_and_the_server_hears_of_that_one() -> None:
    call, wire = RecordingSpan("rerank", "internal", {}), Wire()
    send(INFER, call, wire, times=2)
    wire.answer.set_result(object())
    first, second = call.parts
    assert (first.name, first.kind, first.ended, first.error) == ("triton text_encoder", "client", 1, None)
    assert [part.attributes["lychee.attempt"] for part in (first, second)] == [1, 2]
    assert first.attributes["server.address"] == "triton"
    assert (first.attributes["server.port"], first.attributes["lychee.batch_rows"]) == (8001, 2)
    assert [request.headers for request in wire.sent] == [{"traceparent": "triton text_encoder"}] * 2  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TransportError(ConnectionFailedError, None, "secret", "id"), "ConnectionFailedError"),
        (ValueError("secret"), "ValueError"),
    ],
)
def test_a_failure_is_told_by_its_type_alone(error: Exception, expected: str) -> None:
    call, wire = RecordingSpan("rerank", "internal", {}), Wire()
    send(INFER, call, wire)
    wire.answer.set_exception(error)
    (part,) = call.parts
    assert (part.error, part.ended) == (expected, 1)
    assert "secret" not in repr(part.attributes)


def test_what_was_given_up_is_no_error() -> None:
    call, wire = RecordingSpan("rerank", "internal", {}), Wire()
    send(INFER, call, wire)
    wire.answer.cancel()
    assert (call.parts[0].error, call.parts[0].attributes[GIVEN_UP]) == (None, True)


@pytest.mark.parametrize(("request_", "told"), [(INFER, {}), (JSON, {"traceparent": "unsampled"})])
def test_triton_is_told_of_sampled_traces_alone_and_a_gateway_of_all(request_: Any, told: dict[str, str]) -> None:
    wire = Wire()
    send(request_, UnsampledSpan(), wire)
    assert wire.sent[0].headers == told  # type: ignore[union-attr]


def test_an_untraced_request_is_sent_as_it_is() -> None:
    wire = Wire()
    transport = TracedTransport(wire, Address("triton:8001"), is_grpc=True)
    for request in (INFER, ControlRequest("live")):
        transport.send(request, None)
    send(INFER, SILENT, wire)
    assert wire.sent[:2] == [INFER, ControlRequest("live")]
    assert wire.sent[2].headers == {}  # type: ignore[union-attr]
