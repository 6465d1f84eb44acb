"""gRPC to Triton's KServe service."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from typing import Any, Final

import grpc  # type: ignore[import-untyped]  # ships no types
from google.protobuf.json_format import MessageToDict
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import np_to_triton_dtype

from lychee_client._errors import (
    ConnectionFailedError,
    ContractError,
    DeadlineExceededError,
    InferenceError,
    LycheeError,
    RequestRejectedError,
    ServerError,
)
from lychee_client.transports.base import (
    Action,
    Ambiguity,
    ControlRequest,
    InferRequest,
    InferResponse,
    Request,
    TransportError,
)
from lychee_client.transports.connection import Connection
from lychee_client.transports.shared_memory import Slot
from lychee_client.transports.tensors import place_tensors, queue_timeout_us, to_tensor, watch

_CHANNEL_OPTIONS: Final = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A server that restarts is found again at once, not after gRPC's default of up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
# The translation table. What is not in it is a ServerError.
_ERRORS: Final[dict[str, type[LycheeError] | Ambiguity]] = {
    "UNAVAILABLE": Ambiguity.OVERLOADED_OR_GONE,
    "CANCELLED": ConnectionFailedError,
    "DEADLINE_EXCEEDED": DeadlineExceededError,
    "INVALID_ARGUMENT": Ambiguity.REJECTED_OR_NOT_READY,
    "NOT_FOUND": Ambiguity.REJECTED_OR_NOT_READY,
    "FAILED_PRECONDITION": Ambiguity.REJECTED_OR_NOT_READY,
    "OUT_OF_RANGE": Ambiguity.REJECTED_OR_NOT_READY,
    "RESOURCE_EXHAUSTED": RequestRejectedError,
    "INTERNAL": InferenceError,
    "UNKNOWN": InferenceError,
    "DATA_LOSS": InferenceError,
}
# These also come from a connection that broke, or from an answer that was no gRPC.
_AMBIGUOUS: Final = frozenset({"UNAVAILABLE", "UNKNOWN", "INTERNAL"})
# Method of the service, message, and which fields hold the request's name.
_CONTROL: Final[dict[Action, tuple[str, Any, tuple[str, ...]]]] = {
    "live": ("ServerLive", service_pb2.ServerLiveRequest, ()),
    "ready": ("ServerReady", service_pb2.ServerReadyRequest, ()),
    "model_ready": ("ModelReady", service_pb2.ModelReadyRequest, ("name",)),
    "metadata": ("ServerMetadata", service_pb2.ServerMetadataRequest, ()),
    "index": ("RepositoryIndex", service_pb2.RepositoryIndexRequest, ()),
    "config": ("ModelConfig", service_pb2.ModelConfigRequest, ("name",)),
    "statistics": ("ModelStatistics", service_pb2.ModelStatisticsRequest, ()),
    "register_region": ("SystemSharedMemoryRegister", service_pb2.SystemSharedMemoryRegisterRequest, ("name",)),
    "unregister_region": ("SystemSharedMemoryUnregister", service_pb2.SystemSharedMemoryUnregisterRequest, ("name",)),
}


class GrpcTransport:
    """One channel to one server. See Transport.

    Args:
        connection: The server to connect to; its headers become metadata.
    """

    def __init__(self, connection: Connection) -> None:
        options = list(_CHANNEL_OPTIONS)
        if connection.keepalive_s is not None:
            options.append(("grpc.keepalive_time_ms", round(1e3 * connection.keepalive_s)))
            options.append(("grpc.keepalive_permit_without_calls", 1))
        if connection.tls is None:
            self._channel = grpc.insecure_channel(connection.address, options)
        else:
            authorities, chain, key = connection.tls.read()
            credentials = grpc.ssl_channel_credentials(authorities, key, chain)
            self._channel = grpc.secure_channel(connection.address, credentials, options)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._metadata = [(name.lower(), value) for name, value in connection.headers.items()]
        self._pool = connection.shared_memory
        self._request_prefix = secrets.token_hex(4)
        self._request_number = itertools.count(1)

    def send(self, request: Request, timeout_s: float | None) -> Future[Any]:
        """See Transport."""
        request_id = request.request_id or f"{self._request_prefix}-{next(self._request_number)}"
        read: Callable[[Any], Any]
        slots: dict[str, Slot] = {}
        if isinstance(request, InferRequest):
            slots = place_tensors(self._pool, request)
            method, read = self._stub.ModelInfer, from_message
            message = to_message(request, request_id, timeout_s, slots)
        else:
            name, message = to_control_message(request)
            method, read = getattr(self._stub, name), to_json
        try:
            call = method.future(message, timeout=timeout_s, metadata=self._metadata)
        except ValueError as error:  # gRPC's way to say that the channel is closed
            failed: Future[Any] = Future()
            failed.set_exception(TransportError(ConnectionFailedError, None, str(error), request_id))
            return failed
        answer = _Answer(call, read, request_id, self._is_connected)
        watch(self._pool, request, slots, answer)
        return answer

    def close(self) -> None:
        """See Transport."""
        self._channel.close()

    def _is_connected(self) -> bool:
        """Say whether the connection stands, without making one.

        gRPC has no other word for it at the moment of a failure: its public notifications come later, and a status
        such as UNAVAILABLE may come from the server or from the broken connection.
        """
        try:
            state = self._channel._channel.check_connectivity_state(False)
        except ValueError:  # the channel is closed
            return False
        return bool(state == grpc.ChannelConnectivity.READY.value[0])


class _Answer(Future[Any]):
    """The outcome of a gRPC call; cancelling it cancels the call."""

    def __init__(
        self, call: Any, read: Callable[[Any], Any], request_id: str, is_connected: Callable[[], bool]
    ) -> None:
        super().__init__()
        self._is_connected = is_connected
        self._call = call
        self._read = read
        self._request_id = request_id
        call.add_done_callback(self._finish)

    def cancel(self) -> bool:
        cancelled = super().cancel()
        self._call.cancel()
        return cancelled

    def _finish(self, call: Any) -> None:
        try:
            result = self._read(call.result())
        except grpc.FutureCancelledError:
            super().cancel()
        except grpc.RpcError as error:
            status = error.code().name
            kind = _ERRORS.get(status, ServerError)
            if status in _AMBIGUOUS and not self._is_connected():
                kind = ConnectionFailedError
            failure = TransportError(kind, status, error.details() or "no details", self._request_id)
            if status in _AMBIGUOUS:
                failure.is_connected = self._is_connected
            self._settle(self.set_exception, failure)
        except ContractError as error:
            self._settle(self.set_exception, error)
        else:
            self._settle(self.set_result, result)

    def _settle(self, setter: Callable[[Any], None], outcome: object) -> None:
        try:
            setter(outcome)
        except InvalidStateError:  # it was cancelled in the meantime
            return


def to_message(
    request: InferRequest, request_id: str, timeout_s: float | None, slots: Mapping[str, Slot] | None = None
) -> Any:
    """Return the protobuf message of a request."""
    message = service_pb2.ModelInferRequest(model_name=request.model_name, id=request_id)
    if timeout_s is not None:
        message.parameters["timeout"].int64_param = queue_timeout_us(timeout_s)
    for name, tensor in request.inputs.items():
        entry = message.inputs.add(name=name, datatype=np_to_triton_dtype(tensor.dtype), shape=tensor.shape)
        slot = (slots or {}).get(name)
        if slot is None:
            message.raw_input_contents.append(tensor.tobytes())
            continue
        entry.parameters["shared_memory_region"].string_param = slot.region
        entry.parameters["shared_memory_offset"].int64_param = slot.offset
        entry.parameters["shared_memory_byte_size"].int64_param = slot.size_bytes
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
    return InferResponse(
        {
            output.name: to_tensor(message.model_name, output.name, output.datatype, output.shape, content)
            for output, content in zip(message.outputs, message.raw_output_contents, strict=True)
        }
    )


def to_control_message(request: ControlRequest) -> tuple[str, Any]:
    """Return the name of the service's method and its message."""
    method, message_type, fields = _CONTROL[request.action]
    named = dict.fromkeys(fields, request.name)
    return method, message_type(**named, **request.parameters)


def to_json(message: Any) -> dict[str, Any]:
    """Return a protobuf message as Triton's HTTP API would write it."""
    answer: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return {"ready": answer["live"]} if "live" in answer else answer
