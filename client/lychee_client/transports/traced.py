"""A transport that begins a span for every request of a call that is traced, and tells the server of it.

Source: https://opentelemetry.io/docs/specs/semconv/ (RPC client spans, HTTP client spans; version 1.44)
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any, Final

from lychee_client.tracing.spans import GIVEN_UP, NOTHING, Span, Value
from lychee_client.transports.addresses import Address, split_target
from lychee_client.transports.base import (
    ControlRequest,
    InferRequest,
    JsonRequest,
    JsonResponse,
    Request,
    Transport,
    TransportError,
)

_INFER_METHOD: Final = "inference.GRPCInferenceService/ModelInfer"
_FIRST_ERROR: Final = 400  # of the statuses of HTTP


class TracedTransport:
    """See Transport. Each time that a request is sent is a span: again after a failure, or to another replica too.

    Questions about the server itself have none.

    Args:
        transport: Sends the requests to one server.
        address: Where that server is.
        is_grpc: Whether it speaks gRPC; otherwise HTTP.
    """

    def __init__(self, transport: Transport, address: Address, *, is_grpc: bool) -> None:
        self._transport = transport
        self._is_grpc = is_grpc
        host, port = split_target(str(address))
        self._server: dict[str, Value] = {"server.address": host} | ({} if port is None else {"server.port": port})

    def send(self, request: Request, timeout_s: float | None) -> Future[Any]:
        """See Transport."""
        trace = None if isinstance(request, ControlRequest) else request.trace
        if trace is None:
            return self._transport.send(request, timeout_s)
        attempt = next(trace.attempts)
        if not trace.span.is_sampled:
            return self._transport.send(_tell(request, trace.span), timeout_s)
        span = trace.span.begin(_name(request), "client", {**self._describe(request), "lychee.attempt": attempt})
        try:
            future = self._transport.send(_tell(request, span), timeout_s)
        except BaseException as error:
            span.fail(type(error).__name__)
            span.end()
            raise
        future.add_done_callback(partial(_end, span, self._is_grpc))
        return future

    def close(self, farewell: Request | None = None) -> None:
        """See Transport."""
        self._transport.close(farewell)

    def _describe(self, request: Request) -> Mapping[str, Value]:
        if isinstance(request, JsonRequest):
            return {"http.request.method": request.method, "url.template": request.path, **self._server}
        assert isinstance(request, InferRequest)
        protocol: Mapping[str, Value] = {"http.request.method": "POST", "url.template": "/v2/models/{name}/infer"}
        if self._is_grpc:
            protocol = {"rpc.system.name": "grpc", "rpc.method": _INFER_METHOD}
        return {
            **protocol,
            **self._server,
            "lychee.model.name": request.model_name,
            "lychee.model.version": request.model_version,
            "lychee.batch_rows": request.rows,
        }


def _name(request: Request) -> str:
    if isinstance(request, InferRequest):
        return f"triton {request.model_name}"
    assert isinstance(request, JsonRequest)
    return f"{request.method} {request.path}"


def _tell(request: Request, span: Span) -> Request:
    """Return the request with the headers of a span.

    Triton 2.51 takes part in every trace that it is told of, sampled or not: it is told of the sampled ones alone.
    """
    headers = NOTHING if isinstance(request, InferRequest) and not span.is_sampled else span.headers()
    if not headers:
        return request
    assert isinstance(request, (InferRequest, JsonRequest))
    return replace(request, headers={**headers, **request.headers})


def _end(span: Span, is_grpc: bool, future: Future[Any]) -> None:
    """End the span of an attempt. One that was given up is no error: another replica has answered, or nobody waits."""
    status_name = "rpc.response.status_code" if is_grpc else "http.response.status_code"
    if future.cancelled():
        span.add({GIVEN_UP: True})
    elif (error := future.exception()) is None:
        answer = future.result()
        status = answer.status if isinstance(answer, JsonResponse) else 200
        span.add({status_name: "OK" if is_grpc else status})
        if status >= _FIRST_ERROR:
            span.fail(str(status))
    elif isinstance(error, TransportError):
        if error.status is not None:
            span.add({status_name: error.status if is_grpc else int(error.status)})
        span.fail(error.status or str(getattr(error.kind, "__name__", error.kind)))
    else:
        span.fail(type(error).__name__)
    span.end()
