"""Callers that give up: what their requests do to the server, and to the requests of others."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from lychee_client import ConnectionFailedError, DeadlineExceededError
from lychee_client._config import load_config
from lychee_client.transports import flights
from lychee_client.transports.base import ControlRequest, InferRequest, Request, TransportError
from lychee_client.transports.connection import Connection
from lychee_client.transports.flights import MAX_ABANDONED, Answer, Flights
from lychee_client.transports.grpc import GrpcTransport
from lychee_client.transports.shared_memory import SLOTS, SharedMemoryPool
from tritonclient.grpc import service_pb2, service_pb2_grpc

REQUEST = InferRequest("model", {"pixel_values": np.zeros((1, 8192), np.uint8)}, ())
PATIENCE_S = 20.0
NO_DEADLINE_S = 1e9


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


class Triton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Says its version, and keeps every answer back until it is told to let go; the names are the protocol's."""

    def __init__(self) -> None:
        self.version = "2.51.0"
        self.let_go = threading.Event()
        self.contexts: list[grpc.ServicerContext] = []
        self.asked = 0
        self.on_live: Callable[[grpc.ServicerContext], object] = lambda context: None

    def ServerLive(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self.on_live(context)
        return service_pb2.ServerLiveResponse(live=True)

    def ServerMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self.asked += 1
        return service_pb2.ServerMetadataResponse(name="triton", version=self.version)

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self.contexts.append(context)
        self.let_go.wait(PATIENCE_S)
        return service_pb2.ModelInferResponse(model_name="model")

    @property
    def active(self) -> list[bool]:
        """For each request, whether its client has neither cancelled it nor gone."""
        return [context.is_active() for context in self.contexts]


@pytest.fixture
def triton() -> Triton:
    return Triton()


@pytest.fixture
def address(triton: Triton) -> Iterator[str]:
    with ThreadPoolExecutor(2 * MAX_ABANDONED) as pool:
        server = grpc.server(pool)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(triton, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        triton.let_go.set()
        server.stop(None).wait()


@pytest.fixture
def transport(address: str) -> Iterator[GrpcTransport]:
    transport = GrpcTransport(load_config(address).make_connection(None))
    yield transport
    transport.close()


def learn_version(transport: GrpcTransport) -> None:
    """Wait for the answer to the question that follows the first answer."""
    transport.send(ControlRequest("live"), PATIENCE_S).result()
    wait_until(lambda: transport._flights.count == 0)


@pytest.mark.parametrize("version", ["2.51.0", "2.52.0", "", "newest"])
def test_server_that_may_die_of_it_never_sees_a_cancellation(
    triton: Triton, transport: GrpcTransport, version: str
) -> None:
    triton.version = version
    learn_version(transport)
    for timeout_s in (0.01, None):
        future = transport.send(REQUEST, timeout_s)
        wait_until(lambda: bool(triton.contexts))
        assert future.cancel()
        time.sleep(0.1)
        assert triton.active == [True]
        assert triton.contexts.pop().time_remaining() > NO_DEADLINE_S


def test_server_of_unknown_version_never_sees_a_cancellation(triton: Triton, transport: GrpcTransport) -> None:
    triton.version = "2.53.0"
    transport.send(REQUEST, 0.01).cancel()
    wait_until(lambda: len(triton.contexts) == 1)
    time.sleep(0.1)
    assert triton.active == [True]
    assert triton.asked == 0


@pytest.mark.parametrize("version", ["2.53.0", "2.60.1", "3.0.0"])
def test_server_that_survives_it_is_told_at_once(triton: Triton, transport: GrpcTransport, version: str) -> None:
    triton.version = version
    learn_version(transport)
    assert triton.asked == 1
    future = transport.send(REQUEST, PATIENCE_S)
    wait_until(lambda: len(triton.contexts) == 1)
    assert triton.contexts[0].time_remaining() < 2 * PATIENCE_S
    assert future.cancel()
    wait_until(lambda: triton.active == [False])
    with pytest.raises(TransportError) as caught:
        transport.send(REQUEST, 0.2).result(PATIENCE_S)
    assert caught.value.kind is DeadlineExceededError


def test_version_is_asked_for_again_after_a_lost_connection(triton: Triton, address: str) -> None:
    triton.version = "2.53.0"
    transport = GrpcTransport(load_config(address).make_connection(None))
    learn_version(transport)
    transport._is_connected = lambda: False  # type: ignore[method-assign]
    triton.on_live = lambda context: context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
    with pytest.raises(TransportError):
        transport.send(ControlRequest("live"), PATIENCE_S).result()
    assert not transport._survives_cuts
    transport.close()


def test_abandoned_requests_make_new_ones_wait(triton: Triton, transport: GrpcTransport) -> None:
    given_up = [transport.send(REQUEST, None) for _ in range(MAX_ABANDONED)]
    wait_until(lambda: len(triton.contexts) == MAX_ABANDONED)
    assert all(future.cancel() for future in given_up)
    impatient = [transport.send(REQUEST, None) for _ in range(500)]
    assert all(future.cancel() for future in impatient)
    patient = transport.send(REQUEST, PATIENCE_S)
    time.sleep(0.1)
    assert len(triton.contexts) == MAX_ABANDONED
    triton.let_go.set()
    assert patient.result(PATIENCE_S).outputs == {}
    assert len(triton.contexts) == MAX_ABANDONED + 1


def test_abandoned_requests_of_a_stuck_server_do_not_count_for_ever(
    triton: Triton, transport: GrpcTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    for future in [transport.send(REQUEST, None) for _ in range(MAX_ABANDONED)]:
        future.cancel()
    monkeypatch.setattr(flights, "LINGER_S", 0.0)
    assert transport.send(ControlRequest("live"), None).result(PATIENCE_S) == {"ready": True}


def test_closing_lets_the_server_finish(triton: Triton, transport: GrpcTransport) -> None:
    future = transport.send(REQUEST, None)
    wait_until(lambda: len(triton.contexts) == 1)
    transport.close()
    assert future.cancelled()
    with pytest.raises(TransportError) as caught:
        transport.send(REQUEST, None).result()
    assert caught.value.kind is ConnectionFailedError
    time.sleep(0.1)
    assert triton.active == [True]
    assert not transport._closed.is_set()
    triton.let_go.set()
    assert transport._closed.wait(PATIENCE_S)


def test_closing_sends_the_farewell_last(triton: Triton, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    transport = GrpcTransport(load_config(address).make_connection(None))
    transport.send(REQUEST, None)
    wait_until(lambda: len(triton.contexts) == 1)
    order: list[str] = []
    triton.on_live = lambda context: order.append("farewell")
    monkeypatch.setattr("lychee_client.transports.grpc._FAREWELL_S", 0.1)
    transport.close(ControlRequest("live"))
    assert order == []
    triton.let_go.set()
    assert transport._closed.wait(PATIENCE_S)
    assert order == ["farewell"]


def test_program_with_an_unanswered_request_ends(triton: Triton, address: str) -> None:
    program = (
        "import sys\n"
        "from lychee_client._config import load_config\n"
        "from lychee_client.transports.base import ControlRequest, InferRequest\n"
        "from lychee_client.transports.grpc import GrpcTransport\n"
        "transport = GrpcTransport(load_config(sys.argv[1]).make_connection(None))\n"
        "transport.send(ControlRequest('live'), None).result()\n"
        "transport.send(InferRequest('model', {}, ()), 0.01).cancel()\n"
        "transport.close()\n"
    )
    subprocess.run([sys.executable, "-c", program, address], check=True, timeout=3 * PATIENCE_S)
    assert len(triton.contexts) == 1  # it got there first


def test_slots_are_held_until_the_server_has_done(triton: Triton, address: str) -> None:
    pool = SharedMemoryPool()
    pool.active = True
    try:
        transport = GrpcTransport(Connection(address, address, shared_memory=pool))
        transport.send(REQUEST, None).cancel()
        wait_until(lambda: len(triton.contexts) == 1)
        assert sum(pool._free) == SLOTS - 1
        triton.let_go.set()
        wait_until(lambda: sum(pool._free) == SLOTS)
        transport.close()
    finally:
        pool.close()


def test_request_that_cannot_be_made_fails_for_its_own_caller() -> None:
    begun: list[Answer] = []

    def begin(request: Request, request_id: str, timeout_s: float | None, answer: Answer) -> None:
        if isinstance(request, InferRequest):
            raise TypeError("no tensor")
        begun.append(answer)

    held, fine = Flights(begin, lambda: False), ControlRequest("live")
    given_up = [held.send(fine, None) for _ in range(MAX_ABANDONED)]
    for answer in given_up:
        answer.cancel()
    failing: Future[Any] = held.send(REQUEST, None)
    behind = held.send(fine, None)
    held.land(begun[0], None)
    assert isinstance(failing.exception(0), TypeError)
    assert begun[-1] is behind
