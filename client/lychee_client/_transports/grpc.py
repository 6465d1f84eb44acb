"""gRPC to Triton's KServe service."""

from __future__ import annotations

import itertools
import secrets
from typing import Any, Final

import grpc  # type: ignore[import-untyped]  # ships no types
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import deserialize_bytes_tensor, np_to_triton_dtype, triton_to_np_dtype

from lychee_client._errors import (
    ConnectionFailedError,
    ContractError,
    DeadlineExceededError,
    InferenceError,
    LycheeError,
    ModelNotReadyError,
    RequestRejectedError,
    ServerError,
    ServerOverloadedError,
)
from lychee_client._transports.base import InferRequest, InferResponse, Tensor

PROBE_TIMEOUT_S: Final = 2.0
_CHANNEL_OPTIONS: Final = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A server that restarts is found again at once, not after gRPC's default of up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
_REJECTED: Final = frozenset({"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "OUT_OF_RANGE"})
# The translation table. UNAVAILABLE, DEADLINE_EXCEEDED and _REJECTED need more than the status: see translate.
_ERRORS: Final[dict[str, type[ServerError]]] = {
    "INTERNAL": InferenceError,
    "UNKNOWN": InferenceError,
    "DATA_LOSS": InferenceError,
    "RESOURCE_EXHAUSTED": RequestRejectedError,
    **dict.fromkeys(_REJECTED, RequestRejectedError),
}


class GrpcTransport:
    """One channel to one server. Does no network before the first request.

    Args:
        url: "HOST:PORT".
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._channel = grpc.insecure_channel(url, options=_CHANNEL_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._request_prefix = secrets.token_hex(4)
        self._request_number = itertools.count(1)

    def send(self, request: InferRequest, timeout_s: float | None) -> GrpcPendingResponse:
        """See Transport."""
        request_id = f"{self._request_prefix}-{next(self._request_number)}"
        try:
            call = self._stub.ModelInfer.future(to_message(request, request_id), timeout=timeout_s)
        except ValueError as error:  # gRPC's way to say that the channel is closed
            raise ConnectionFailedError(f"the connection to {self._url} is closed; make a new client") from error
        return GrpcPendingResponse(self, call, request.model_name, request_id, timeout_s)

    def is_live(self, timeout_s: float | None) -> bool:
        """See Transport."""
        return self._probe(self._stub.ServerLive, service_pb2.ServerLiveRequest(), timeout_s, "live")

    def is_model_ready(self, model_name: str, timeout_s: float | None) -> bool:
        """See Transport."""
        request = service_pb2.ModelReadyRequest(name=model_name)
        return self._probe(self._stub.ModelReady, request, timeout_s, "ready")

    def close(self) -> None:
        """See Transport."""
        self._channel.close()

    def _probe(self, method: Any, request: Any, timeout_s: float | None, field: str) -> bool:
        try:
            return bool(getattr(method(request, timeout=timeout_s), field))
        except (grpc.RpcError, ValueError):  # ValueError: the channel is closed
            return False

    def translate(self, error: grpc.RpcError, model: str, request_id: str, timeout_s: float | None) -> LycheeError:
        """Return our error for gRPC's. The status decides, and where it is ambiguous, a probe.

        Args:
            error: Of one request.
            model: Its model.
            request_id: Its id.
            timeout_s: The seconds it had.
        """
        status, details = error.code().name, error.details() or "no details"
        about: dict[str, Any] = {"model_name": model, "request_id": request_id}
        if status == "DEADLINE_EXCEEDED":
            limit = "its deadline" if timeout_s is None else f"the {timeout_s:.3g} s that were left"
            return DeadlineExceededError(
                f"{model} on {self._url} did not answer within {limit}; allow more with timeout_s, or send less",
                timeout_s=timeout_s,
                **about,
            )
        if status == "CANCELLED":
            return ConnectionFailedError(f"the request to {model} on {self._url} was cancelled: {details}", **about)
        if status == "UNAVAILABLE":
            if self.is_live(PROBE_TIMEOUT_S):
                return ServerOverloadedError(
                    f"{self._url} is live but did not take the request to {model}: {details}; try again later",
                    status=status,
                    **about,
                )
            return ConnectionFailedError(
                f"no Triton server answers on {self._url}: {details}; start one with `lychee load`, and check that "
                "the port is the gRPC port (8001 by default)",
                **about,
            )
        if status in _REJECTED and not self.is_model_ready(model, PROBE_TIMEOUT_S):
            return ModelNotReadyError(
                f"{model} is not ready on {self._url}: {details}; use wait_until_ready(), or look into the "
                "server's log",
                status=status,
                **about,
            )
        kind = _ERRORS.get(status, ServerError)
        return kind(f"{model} on {self._url} answered {status}: {details}", status=status, **about)


class GrpcPendingResponse:
    """A request in flight."""

    def __init__(
        self, transport: GrpcTransport, call: Any, model_name: str, request_id: str, timeout_s: float | None
    ) -> None:
        self._transport = transport
        self._call = call
        self._model_name = model_name
        self._request_id = request_id
        self._timeout_s = timeout_s

    def result(self) -> InferResponse:
        """See PendingResponse."""
        try:
            response = self._call.result()
        except grpc.FutureCancelledError as error:
            raise ConnectionFailedError(
                f"the request to {self._model_name} was cancelled by the client",
                model_name=self._model_name,
                request_id=self._request_id,
            ) from error
        except grpc.RpcError as error:
            raise self._transport.translate(error, self._model_name, self._request_id, self._timeout_s) from error
        return from_message(response)

    def cancel(self) -> None:
        """See PendingResponse."""
        self._call.cancel()


def to_message(request: InferRequest, request_id: str) -> Any:
    """Return the protobuf message of a request."""
    message = service_pb2.ModelInferRequest(model_name=request.model_name, id=request_id)
    for name, tensor in request.inputs.items():
        message.inputs.add(name=name, datatype=np_to_triton_dtype(tensor.dtype), shape=tensor.shape)
        message.raw_input_contents.append(tensor.tobytes())
    for name in request.outputs:
        message.outputs.add(name=name)
    return message


def from_message(message: Any) -> InferResponse:
    """Return the tensors of a protobuf message.

    Raises:
        ContractError: Bytes and declared shapes do not fit together.
    """
    if len(message.outputs) != len(message.raw_output_contents):
        raise ContractError(
            f"{message.model_name} declared {len(message.outputs)} outputs and sent {len(message.raw_output_contents)}",
            model_name=message.model_name,
            request_id=message.id,
        )
    outputs: dict[str, Tensor] = {}
    for output, content in zip(message.outputs, message.raw_output_contents, strict=True):
        try:
            if output.datatype == "BYTES":
                tensor = deserialize_bytes_tensor(content)
            else:
                tensor = np.frombuffer(content, triton_to_np_dtype(output.datatype))
            outputs[output.name] = tensor.reshape(tuple(output.shape))
        except Exception as error:  # numpy and struct errors of many kinds
            raise ContractError(
                f"{message.model_name} sent {len(content)} bytes as {output.name}, declared as {output.datatype} "
                f"{tuple(output.shape)}",
                model_name=message.model_name,
                request_id=message.id,
            ) from error
    return InferResponse(outputs)
