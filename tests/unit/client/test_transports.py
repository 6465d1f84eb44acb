"""Both transports against scripted servers in this process, on the loopback: the same tests for gRPC and HTTP."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import grpc
import numpy as np
import numpy.typing as npt
import pytest
from lychee_client import (
    ConnectionFailedError,
    ContractError,
    DeadlineExceededError,
    InferenceError,
    LycheeError,
    RequestRejectedError,
    ServerError,
)
from lychee_client._config import load_config
from lychee_client._connect import connect
from lychee_client.transports.base import Ambiguity, ControlRequest, InferRequest, Transport, TransportError
from lychee_client.transports.tensors import to_bytes
from tritonclient.grpc import service_pb2, service_pb2_grpc

REQUEST = InferRequest(
    "model",
    {"input_ids": np.arange(6, dtype=np.int64).reshape(2, 3), "pixel_values": np.full((2, 1), 200, np.uint8)},
    ("relevance_score",),
)
STATISTICS = {"model_stats": [{"name": "model", "inference_stats": {"queue": {"count": 3, "ns": 5}}}]}


@dataclass
class Received:
    """One request, in terms of no protocol."""

    model_name: str
    request_id: str
    inputs: list[tuple[str, str, list[int], bytes]]
    outputs: list[str]
    parameters: dict[str, int]
    headers: dict[str, str]
    peer: str


@dataclass
class Script:
    """What a server does.

    Attributes:
        answer: Returns name, type, shape and content of the outputs, or the status of an error.
        received: What has come in.
    """

    answer: Callable[[], list[tuple[str, str, list[int], bytes | None]] | Any] = list
    received: list[Received] = field(default_factory=list)


class GrpcServer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Speaks gRPC; the names are the protocol's."""

    def __init__(self, script: Script) -> None:
        self.script = script

    def ServerLive(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return service_pb2.ServerLiveResponse(live=True)

    def ModelReady(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return service_pb2.ModelReadyResponse(ready=request.name == "model")

    def ModelStatistics(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        response = service_pb2.ModelStatisticsResponse()
        model = response.model_stats.add(name="model")
        model.inference_stats.queue.count, model.inference_stats.queue.ns = 3, 5
        return response

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self.script.received.append(
            Received(
                request.model_name,
                request.id,
                [
                    (tensor.name, tensor.datatype, list(tensor.shape), content)
                    for tensor, content in zip(request.inputs, request.raw_input_contents, strict=True)
                ],
                [tensor.name for tensor in request.outputs],
                {name: value.int64_param or value.uint64_param for name, value in request.parameters.items()},
                dict(context.invocation_metadata()),
                context.peer(),
            )
        )
        answer = self.script.answer()
        if isinstance(answer, grpc.StatusCode):
            context.abort(answer, "the details")
        response = service_pb2.ModelInferResponse(model_name="model")
        for name, datatype, shape, content in answer:
            response.outputs.add(name=name, datatype=datatype, shape=shape)
            if content is not None:
                response.raw_output_contents.append(content)
        return response


class HttpServer(BaseHTTPRequestHandler):
    """Speaks Triton's HTTP; the names are the library's."""

    script: ClassVar[Script]
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        """Be quiet."""

    def reply(self, status: int, body: bytes, header_length: int | None = None) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if header_length is not None:
                self.send_header("Inference-Header-Content-Length", str(header_length))
            self.end_headers()
            self.wfile.write(body)
        except OSError:  # the client has gone
            self.close_connection = True

    def do_GET(self) -> None:
        if self.path == "/v2/models/stats":
            self.reply(200, json.dumps(STATISTICS).encode())
        else:
            self.reply(200 if self.path in ("/v2/health/live", "/v2/models/model/ready") else 400, b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        length = int(self.headers["Inference-Header-Content-Length"])
        header, content = json.loads(body[:length]), body[length:]
        inputs = []
        for tensor in header["inputs"]:
            size = tensor["parameters"]["binary_data_size"]
            inputs.append((tensor["name"], tensor["datatype"], tensor["shape"], content[:size]))
            content = content[size:]
        self.script.received.append(
            Received(
                self.path.split("/")[3],
                header["id"],
                inputs,
                [tensor["name"] for tensor in header["outputs"]],
                header["parameters"],
                {name.lower(): value for name, value in self.headers.items()},
                str(self.client_address),
            )
        )
        answer = self.script.answer()
        if isinstance(answer, int):
            self.reply(answer, json.dumps({"error": "the details"}).encode())
            return
        outputs = [
            {"name": n, "datatype": t, "shape": s, "parameters": {} if c is None else {"binary_data_size": len(c)}}
            for n, t, s, c in answer
        ]
        reply = json.dumps({"model_name": "model", "outputs": outputs}).encode()
        self.reply(200, reply + b"".join(content or b"" for *_, content in answer), len(reply))


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture(params=["grpc", "http"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(protocol: str, script: Script) -> Iterator[str]:
    if protocol == "grpc":
        with ThreadPoolExecutor(4) as pool:
            running = grpc.server(pool)
            service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(GrpcServer(script), running)
            port = running.add_insecure_port("127.0.0.1:0")
            running.start()
            yield f"127.0.0.1:{port}"
            running.stop(None).wait()
        return
    handler = type("Handler", (HttpServer,), {"script": script})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def transport(url: str) -> Iterator[Transport]:
    transport = connect(load_config(url, headers={"X-Tenant": "blue"}))
    yield transport
    transport.close()


def test_tensors_travel_both_ways(script: Script, transport: Transport) -> None:
    script.answer = lambda: [
        ("relevance_score", "FP32", [2, 1], np.array([0.25, 0.75], np.float32).tobytes()),
        ("manifest", "BYTES", [1], b"\x03\x00\x00\x00abc"),
    ]
    outputs = transport.send(REQUEST, 10).result().outputs
    np.testing.assert_array_equal(outputs["relevance_score"], np.array([[0.25], [0.75]], np.float32))
    assert outputs["manifest"].tolist() == [b"abc"]
    (received,) = script.received
    assert received.model_name == "model"
    assert received.inputs == [
        ("input_ids", "INT64", [2, 3], REQUEST.inputs["input_ids"].tobytes()),
        ("pixel_values", "UINT8", [2, 1], REQUEST.inputs["pixel_values"].tobytes()),
    ]
    assert received.outputs == ["relevance_score"]
    assert list(received.parameters) == ["timeout"]
    assert 9_000_000 < received.parameters["timeout"] <= 10_000_000
    assert received.headers["x-tenant"] == "blue"


CONTENT = np.arange(6, dtype=np.float16).tobytes()
WHOLE = np.frombuffer(CONTENT, np.float16)
PARTS = [WHOLE, WHOLE.reshape(2, 3), WHOLE.reshape(2, 3).T, WHOLE[1:4], WHOLE[::-1], np.broadcast_to(WHOLE[:1], (6,))]


@pytest.mark.parametrize("tensor", PARTS)
def test_parts_of_some_bytes_travel_as_they_are_read(
    script: Script, transport: Transport, tensor: npt.NDArray[np.float16]
) -> None:
    script.answer = lambda: [("relevance_score", "FP32", [0], b"")]
    transport.send(InferRequest("model", {"vectors": tensor}, ("relevance_score",)), None).result(10)
    assert [content for *_, content in script.received[0].inputs] == [tensor.tobytes()]


def test_bytes_that_are_a_whole_tensor_are_not_copied() -> None:
    assert to_bytes(WHOLE.reshape(2, 3)[None]) is CONTENT


def test_request_without_limits_names_none(script: Script, transport: Transport) -> None:
    transport.send(InferRequest("model", REQUEST.inputs, ()), None).result()
    assert script.received[0].parameters == {}


def test_every_request_has_its_own_id(script: Script, transport: Transport) -> None:
    for _ in range(3):
        transport.send(REQUEST, 10).result()
    assert len({received.request_id for received in script.received}) == 3


def test_request_travels_under_the_id_that_it_brings(script: Script, transport: Transport) -> None:
    transport.send(replace(REQUEST, request_id="call/1"), 10).result()
    assert [received.request_id for received in script.received] == ["call/1"]


def test_failure_names_the_id_that_the_request_brought(script: Script, transport: Transport, protocol: str) -> None:
    script.answer = lambda: (grpc.StatusCode.INTERNAL, 500)[protocol == "http"]
    with pytest.raises(TransportError) as caught:
        transport.send(replace(REQUEST, request_id="call/2"), 10).result()
    assert caught.value.request_id == "call/2"


@pytest.mark.parametrize(
    ("statuses", "kind"),
    [
        ((grpc.StatusCode.UNAVAILABLE, 503), Ambiguity.OVERLOADED_OR_GONE),
        ((grpc.StatusCode.INVALID_ARGUMENT, 400), Ambiguity.REJECTED_OR_NOT_READY),
        ((grpc.StatusCode.NOT_FOUND, 404), Ambiguity.REJECTED_OR_NOT_READY),
        ((grpc.StatusCode.RESOURCE_EXHAUSTED, 413), RequestRejectedError),
        ((grpc.StatusCode.INTERNAL, 500), InferenceError),
        ((grpc.StatusCode.UNKNOWN, 500), InferenceError),
        ((grpc.StatusCode.DEADLINE_EXCEEDED, 504), DeadlineExceededError),
        ((grpc.StatusCode.CANCELLED, 499), ConnectionFailedError),
        ((grpc.StatusCode.PERMISSION_DENIED, 403), ServerError),
        ((grpc.StatusCode.UNIMPLEMENTED, 501), ServerError),
        ((grpc.StatusCode.UNIMPLEMENTED, 302), ServerError),
    ],
)
def test_same_fault_is_the_same_kind(
    script: Script,
    transport: Transport,
    protocol: str,
    statuses: tuple[grpc.StatusCode, int],
    kind: type[LycheeError] | Ambiguity,
) -> None:
    script.answer = lambda: statuses[protocol == "http"]
    with pytest.raises(TransportError) as caught:
        transport.send(REQUEST, 10).result()
    error = caught.value
    assert error.kind is kind
    assert error.status == (str(statuses[1]) if protocol == "http" else statuses[0].name)
    assert (error.details, error.request_id) == ("the details", script.received[0].request_id)


def test_questions_are_answered_alike(transport: Transport) -> None:
    def ask(request: ControlRequest) -> dict[str, Any]:
        answer: dict[str, Any] = transport.send(request, 10).result()
        return answer

    assert ask(ControlRequest("live")) == {"ready": True}
    assert ask(ControlRequest("model_ready", "model")) == {"ready": True}
    assert ask(ControlRequest("model_ready", "other")) == {"ready": False}
    queue = ask(ControlRequest("statistics"))["model_stats"][0]["inference_stats"]["queue"]
    assert (int(queue["count"]), int(queue["ns"])) == (3, 5)


def test_nobody_listening_is_a_failed_connection(protocol: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        transport = connect(load_config(address if protocol == "grpc" else f"http://{address}"))
        try:
            with pytest.raises(TransportError) as caught:
                transport.send(REQUEST, 10).result()
        finally:
            transport.close()
    assert caught.value.kind in (ConnectionFailedError, Ambiguity.OVERLOADED_OR_GONE)
    assert address.partition(":")[2] in caught.value.details


def send_and_hold(script: Script, transport: Transport, released: threading.Event) -> Future[Any]:
    """Send a request and return once it is with the server, which holds the answer back."""
    arrived = threading.Event()

    def answer() -> list[Any]:
        arrived.set()
        released.wait(10)
        return []

    script.answer = answer
    future = transport.send(REQUEST, 10)
    assert arrived.wait(10)
    return future


def test_cancelled_request_is_cancelled(script: Script, transport: Transport) -> None:
    released = threading.Event()
    future = send_and_hold(script, transport, released)
    assert future.cancel()
    with pytest.raises(CancelledError):
        future.result()
    released.set()
    assert transport.send(ControlRequest("live"), 10).result() == {"ready": True}


def test_close_ends_what_is_in_flight(script: Script, transport: Transport) -> None:
    released = threading.Event()
    future = send_and_hold(script, transport, released)
    transport.close()
    with pytest.raises((CancelledError, TransportError)):
        future.result(10)
    released.set()
    with pytest.raises(TransportError) as caught:
        transport.send(REQUEST, 10).result()
    assert caught.value.kind is ConnectionFailedError


def test_close_without_use_is_quiet(url: str) -> None:
    transport = connect(load_config(url))
    before = threading.active_count()
    transport.close()
    transport.close()
    assert threading.active_count() <= before


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
    script: Script, transport: Transport, datatype: str, shape: list[int], content: bytes | None
) -> None:
    script.answer = lambda: [("relevance_score", datatype, shape, content)]
    with pytest.raises(ContractError, match="model"):
        transport.send(REQUEST, 10).result()


def test_large_answers_pass(script: Script, transport: Transport) -> None:
    size = 6 * 2**20  # above gRPC's default limit of 4 MiB
    script.answer = lambda: [("big", "UINT8", [size], bytes(size))]
    assert transport.send(REQUEST, 30).result().outputs["big"].shape == (size,)


def test_many_requests_at_once_are_all_answered(script: Script, transport: Transport) -> None:
    futures = [transport.send(REQUEST, 30) for _ in range(50)]
    assert all(future.result().outputs == {} for future in futures)
    assert len(script.received) == 50


def test_connection_is_used_again(script: Script, transport: Transport) -> None:
    for _ in range(5):
        transport.send(REQUEST, 10).result()
    assert len({received.peer for received in script.received}) == 1
