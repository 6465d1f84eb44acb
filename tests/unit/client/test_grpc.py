"""The gRPC transport against a scripted server in this process, on the loopback."""

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from lychee_client import (
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
from lychee_client._transports.base import InferRequest
from lychee_client._transports.grpc import GrpcTransport
from tritonclient.grpc import service_pb2, service_pb2_grpc

REQUEST = InferRequest(
    "model",
    {"input_ids": np.arange(6, dtype=np.int64).reshape(2, 3), "pixel_values": np.full((2, 1), 200, np.uint8)},
    ("relevance_score",),
)


class Server(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers what the test has set; the names are the protocol's."""

    def __init__(self) -> None:
        self.model_ready = True
        self.answer: Callable[[service_pb2.ModelInferRequest, grpc.ServicerContext], object] = lambda *_: None

    def ServerLive(self, request: object, context: grpc.ServicerContext) -> object:  # noqa: N802
        return service_pb2.ServerLiveResponse(live=True)

    def ModelReady(self, request: object, context: grpc.ServicerContext) -> object:  # noqa: N802
        return service_pb2.ModelReadyResponse(ready=self.model_ready)

    def ModelInfer(self, request: service_pb2.ModelInferRequest, context: grpc.ServicerContext) -> object:  # noqa: N802
        return self.answer(request, context)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def url(server: Server) -> Iterator[str]:
    with ThreadPoolExecutor(4) as pool:
        running = grpc.server(pool)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(server, running)
        port = running.add_insecure_port("127.0.0.1:0")
        running.start()
        yield f"127.0.0.1:{port}"
        running.stop(None).wait()


@pytest.fixture
def transport(url: str) -> Iterator[GrpcTransport]:
    transport = GrpcTransport(url)
    yield transport
    transport.close()


def abort_with(code: grpc.StatusCode) -> Callable[..., object]:
    return lambda _, context: context.abort(code, "the details")


def test_tensors_travel_both_ways(server: Server, transport: GrpcTransport) -> None:
    received = []

    def answer(request: service_pb2.ModelInferRequest, _: object) -> object:
        received.append(request)
        response = service_pb2.ModelInferResponse(model_name="model")
        response.outputs.add(name="relevance_score", datatype="FP32", shape=[2, 1])
        response.raw_output_contents.append(np.array([0.25, 0.75], np.float32).tobytes())
        response.outputs.add(name="manifest", datatype="BYTES", shape=[1])
        response.raw_output_contents.append(b"\x03\x00\x00\x00abc")
        return response

    server.answer = answer
    outputs = transport.send(REQUEST, 10).result().outputs
    np.testing.assert_array_equal(outputs["relevance_score"], np.array([[0.25], [0.75]], np.float32))
    assert outputs["manifest"].tolist() == [b"abc"]
    (request,) = received
    assert request.model_name == "model"
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in request.inputs] == [
        ("input_ids", "INT64", [2, 3]),
        ("pixel_values", "UINT8", [2, 1]),
    ]
    assert list(request.raw_input_contents) == [tensor.tobytes() for tensor in REQUEST.inputs.values()]
    assert [tensor.name for tensor in request.outputs] == ["relevance_score"]


@pytest.mark.parametrize(
    ("code", "model_ready", "expected"),
    [
        (grpc.StatusCode.UNAVAILABLE, True, ServerOverloadedError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, True, DeadlineExceededError),
        (grpc.StatusCode.INVALID_ARGUMENT, True, RequestRejectedError),
        (grpc.StatusCode.INVALID_ARGUMENT, False, ModelNotReadyError),
        (grpc.StatusCode.NOT_FOUND, True, RequestRejectedError),
        (grpc.StatusCode.NOT_FOUND, False, ModelNotReadyError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, True, RequestRejectedError),
        (grpc.StatusCode.INTERNAL, True, InferenceError),
        (grpc.StatusCode.UNKNOWN, True, InferenceError),
        (grpc.StatusCode.CANCELLED, True, ConnectionFailedError),
        (grpc.StatusCode.UNIMPLEMENTED, True, ServerError),
        (grpc.StatusCode.PERMISSION_DENIED, True, ServerError),
    ],
)
def test_status_becomes_one_exception(
    server: Server, transport: GrpcTransport, code: grpc.StatusCode, model_ready: bool, expected: type[LycheeError]
) -> None:
    server.model_ready = model_ready
    server.answer = abort_with(code)
    with pytest.raises(LycheeError) as caught:
        transport.send(REQUEST, 10).result()
    error = caught.value
    assert type(error) is expected
    assert error.model_name == "model"
    assert error.request_id
    assert isinstance(error.__cause__, grpc.RpcError)
    if isinstance(error, ServerError):
        assert error.status == code.name
        assert "the details" in str(error)


def test_every_request_has_its_own_id(server: Server, transport: GrpcTransport) -> None:
    seen = []

    def answer(request: service_pb2.ModelInferRequest, context: grpc.ServicerContext) -> object:
        seen.append(request.id)
        return service_pb2.ModelInferResponse()

    server.answer = answer
    for _ in range(3):
        transport.send(REQUEST, 10).result()
    assert len(set(seen)) == 3


def test_nobody_listening_is_connection_failed() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        transport = GrpcTransport(f"127.0.0.1:{unused.getsockname()[1]}")
        try:
            with pytest.raises(ConnectionFailedError, match="lychee load"):
                transport.send(REQUEST, 10).result()
            assert not transport.is_live(1)
            assert not transport.is_model_ready("model", 1)
        finally:
            transport.close()


def test_deadline_travels_with_the_request(server: Server, transport: GrpcTransport) -> None:
    released = threading.Event()
    server.answer = lambda *_: released.wait(10)
    with pytest.raises(DeadlineExceededError) as caught:
        transport.send(REQUEST, 0.2).result()
    released.set()
    assert caught.value.timeout_s == 0.2


def test_cancelled_request_is_connection_failed(server: Server, transport: GrpcTransport) -> None:
    released = threading.Event()
    server.answer = lambda *_: released.wait(10)
    pending = transport.send(REQUEST, 10)
    pending.cancel()
    with pytest.raises(ConnectionFailedError, match="cancelled"):
        pending.result()
    released.set()


def test_closed_transport_is_connection_failed(transport: GrpcTransport) -> None:
    transport.close()
    with pytest.raises(ConnectionFailedError, match="closed"):
        transport.send(REQUEST, 10).result()
    assert not transport.is_live(1)


@pytest.mark.parametrize(
    ("datatype", "shape", "content"),
    [
        ("FP32", [2, 1], b"\0" * 4),
        ("FP32", [1], b"\0" * 3),
        ("NONSENSE", [1], b"\0" * 4),
        ("BYTES", [1], b"\xff\xff\xff\x7f"),
        ("FP32", [1], None),
    ],
)
def test_answer_that_does_not_fit_together_is_a_contract_error(
    server: Server, transport: GrpcTransport, datatype: str, shape: list[int], content: bytes | None
) -> None:
    def answer(*_: object) -> object:
        response = service_pb2.ModelInferResponse(model_name="model")
        response.outputs.add(name="relevance_score", datatype=datatype, shape=shape)
        if content is not None:
            response.raw_output_contents.append(content)
        return response

    server.answer = answer
    with pytest.raises(ContractError, match="model"):
        transport.send(REQUEST, 10).result()


def test_large_answers_pass(server: Server, transport: GrpcTransport) -> None:
    size = 6 * 2**20  # above gRPC's default limit of 4 MiB

    def answer(*_: object) -> object:
        response = service_pb2.ModelInferResponse(model_name="model")
        response.outputs.add(name="big", datatype="UINT8", shape=[size])
        response.raw_output_contents.append(bytes(size))
        return response

    server.answer = answer
    assert transport.send(REQUEST, 30).result().outputs["big"].shape == (size,)
