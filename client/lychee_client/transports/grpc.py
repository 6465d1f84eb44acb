"""gRPC to Triton's KServe service."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future
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
from lychee_client.transports.addresses import split_target
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
from lychee_client.transports.flights import Answer, Flights
from lychee_client.transports.shared_memory import Slot
from lychee_client.transports.tensors import place_tensors, queue_timeout_us, release_slots, to_bytes, to_tensor

_CHANNEL_OPTIONS: Final[list[tuple[str, int | str]]] = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A server that restarts is found again at once, not after gRPC's default of up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Else a new channel gets the connection of the old one, and with it the server that is to be left.
    ("grpc.use_local_subchannel_pool", 1),
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
# gRPC's words for a call whose connection broke. Another connection may stand by the time that anybody looks.
_BROKEN: Final = "Stream removed ("
# Triton's words for a request without the key; the status is UNAVAILABLE, which would be tried again.
_RESTRICTED: Final = "protocol is restricted"
# Older ones die of cancelled calls now and then: https://github.com/triton-inference-server/server/releases/tag/v2.53.0
_FIRST_THAT_SURVIVES: Final = (2, 53)
_FAREWELL_S: Final = 1.0
_EXIT_S: Final = 2.0
# Method of the service, message, and which of its fields the request fills.
_CONTROL: Final[dict[Action, tuple[str, Any, tuple[str, ...]]]] = {
    "live": ("ServerLive", service_pb2.ServerLiveRequest, ()),
    "ready": ("ServerReady", service_pb2.ServerReadyRequest, ()),
    "model_ready": ("ModelReady", service_pb2.ModelReadyRequest, ("name", "version")),
    "metadata": ("ServerMetadata", service_pb2.ServerMetadataRequest, ()),
    "index": ("RepositoryIndex", service_pb2.RepositoryIndexRequest, ()),
    "config": ("ModelConfig", service_pb2.ModelConfigRequest, ("name", "version")),
    "statistics": ("ModelStatistics", service_pb2.ModelStatisticsRequest, ()),
    "register_region": ("SystemSharedMemoryRegister", service_pb2.SystemSharedMemoryRegisterRequest, ("name",)),
    "unregister_region": ("SystemSharedMemoryUnregister", service_pb2.SystemSharedMemoryUnregisterRequest, ("name",)),
}


class GrpcTransport:
    """One channel to one server. See Transport.

    Calls are cut and have a deadline on the wire only where the server has said that it is a Triton that survives it.
    The transport asks after its first answer, and again after a lost connection.

    Args:
        connection: The server to connect to; its headers become metadata.
    """

    def __init__(self, connection: Connection) -> None:
        options: list[tuple[str, int | str]] = list(_CHANNEL_OPTIONS)
        if connection.keepalive_s is not None:
            options.append(("grpc.keepalive_time_ms", round(1e3 * connection.keepalive_s)))
            options.append(("grpc.keepalive_permit_without_calls", 1))
        target = connection.address
        if connection.ip is not None:
            host, port = split_target(connection.address)
            target = f"ipv6:[{connection.ip}]:{port}" if ":" in connection.ip else f"ipv4:{connection.ip}:{port}"
            options.append(("grpc.default_authority", connection.address))
            if connection.tls is not None:
                options.append(("grpc.ssl_target_name_override", host))
        if connection.tls is None:
            self._channel = grpc.insecure_channel(target, options)
        else:
            authorities, chain, key = connection.tls.read()
            credentials = grpc.ssl_channel_credentials(authorities, key, chain)
            self._channel = grpc.secure_channel(target, credentials, options)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        headers = {**connection.triton_headers, **connection.headers}
        self._metadata = [(name.lower(), value) for name, value in headers.items()]
        self._pool = connection.shared_memory
        self._asked = False
        self._survives_cuts = False
        self._flights = Flights(self._begin, lambda: self._survives_cuts)
        self._closed = threading.Event()
        _OPEN.add(self)

    def send(self, request: Request, timeout_s: float | None) -> Future[Any]:
        """See Transport."""
        return self._flights.send(request, timeout_s)

    def close(self, farewell: Request | None = None) -> None:
        """See Transport."""
        self._flights.close(self._disconnect, farewell)
        if farewell is not None:
            self._closed.wait(_FAREWELL_S)

    def wait(self, until_s: float) -> None:
        """Wait until the server has finished what the end of this process would cut, at most until then."""
        while self._flights.count and not self._survives_cuts and self._is_connected() and time.monotonic() < until_s:
            time.sleep(0.01)

    def _disconnect(self) -> None:
        self._channel.close()
        self._closed.set()

    def _begin(self, request: Request, request_id: str, timeout_s: float | None, answer: Answer) -> None:
        read: Callable[[Any], Any]
        slots: dict[str, Slot] = {}
        metadata = self._metadata
        if isinstance(request, InferRequest):
            metadata = [*metadata, *request.headers.items()] if request.headers else metadata
            slots = place_tensors(self._pool, request)
            method, read = self._stub.ModelInfer, from_message
            message = to_message(request, request_id, timeout_s, slots)
        else:
            assert isinstance(request, ControlRequest), "a gateway speaks HTTP"
            name, message = to_control_message(request)
            method, read = getattr(self._stub, name), to_json
        call = method.future(message, timeout=timeout_s if self._survives_cuts else None, metadata=metadata)
        answer.cut = call.cancel

        def end(call: Any) -> None:
            outcome = self._read(call, read, request_id)
            release_slots(self._pool, request, slots, outcome)
            if isinstance(request, ControlRequest) and request.action == "metadata":
                self._survives_cuts = isinstance(outcome, dict) and _survives_cuts(outcome)
            self._flights.land(answer, outcome)

        call.add_done_callback(end)

    def _read(self, call: Any, read: Callable[[Any], Any], request_id: str) -> object:
        """Return what a call has answered, or the exception for it."""
        try:
            result = read(call.result())
        except grpc.FutureCancelledError:  # by us, so that nobody takes this
            return TransportError(ConnectionFailedError, "CANCELLED", "cancelled", request_id)
        except grpc.RpcError as error:
            status, details = error.code().name, error.details() or "no details"
            kind = ServerError if _RESTRICTED in details else _ERRORS.get(status, ServerError)
            if status in _AMBIGUOUS and (details.startswith(_BROKEN) or not self._is_connected()):
                kind = ConnectionFailedError
                self._asked = self._survives_cuts = False  # another server may come in its place
            failure = TransportError(kind, status, details, request_id)
            if status in _AMBIGUOUS:
                failure.is_connected = self._is_connected
            return failure
        except ContractError as error:
            return error
        if not self._asked:
            self._asked = True
            self.send(ControlRequest("metadata"), None)
        return result

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


_OPEN: Final[weakref.WeakSet[GrpcTransport]] = weakref.WeakSet()


@atexit.register
def _wait_for_all() -> None:
    """Let servers finish what they have: the end of this process would cancel it."""
    until_s = time.monotonic() + _EXIT_S
    for transport in list(_OPEN):
        transport.wait(until_s)


def _survives_cuts(metadata: Mapping[str, Any]) -> bool:
    """Say whether a server is a Triton that survives cancelled calls. Whose version cannot be read does not."""
    numbers = str(metadata.get("version", "")).split(".")[:2]
    return all(number.isdecimal() for number in numbers) and tuple(map(int, numbers)) >= _FIRST_THAT_SURVIVES


def to_message(
    request: InferRequest, request_id: str, timeout_s: float | None, slots: Mapping[str, Slot] | None = None
) -> Any:
    """Return the protobuf message of a request."""
    message = service_pb2.ModelInferRequest(
        model_name=request.model_name, model_version=request.model_version, id=request_id
    )
    if timeout_s is not None:
        message.parameters["timeout"].int64_param = queue_timeout_us(timeout_s)
    for name, tensor in request.inputs.items():
        entry = message.inputs.add(name=name, datatype=np_to_triton_dtype(tensor.dtype), shape=tensor.shape)
        slot = (slots or {}).get(name)
        if slot is None:
            message.raw_input_contents.append(to_bytes(tensor))
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
    filled = {"name": request.name, "version": request.model_version}
    return method, message_type(**{field: filled[field] for field in fields}, **request.parameters)


def to_json(message: Any) -> dict[str, Any]:
    """Return a protobuf message as Triton's HTTP API would write it."""
    answer: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return {"ready": answer["live"]} if "live" in answer else answer
