"""The proxy that the tests of faults rely on, in front of a server that sends back what it gets."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator

import pytest

from .faults import GARBAGE, HOST, THREAD_NAME, Fault, FaultProxy

MESSAGE = b"0123456789" * 100
TIMEOUT_S = 5.0


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(2**16):
            self.request.sendall(data)


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    """Put a proxy in front of an echo server."""
    with socketserver.ThreadingTCPServer((HOST, 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        with FaultProxy(f"{HOST}:{server.server_address[1]}") as proxy:
            yield proxy
        server.shutdown()
        thread.join()


def connect(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection((HOST, proxy.port), TIMEOUT_S)


def read(connection: socket.socket, size: int) -> bytes:
    """Return so many bytes, or fewer if the other side ends before."""
    data = b""
    while len(data) < size and (more := connection.recv(size - len(data))):
        data += more
    return data


def test_pass_forwards_both_ways(proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        for _ in range(3):
            connection.sendall(MESSAGE)
            assert read(connection, len(MESSAGE)) == MESSAGE
    assert proxy.connections == 1


def test_end_of_the_client_reaches_the_server_and_back(proxy: FaultProxy) -> None:
    with connect(proxy) as connection:
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""


def test_refuse_ends_connections_and_refuses_new_ones_until_it_passes(proxy: FaultProxy) -> None:
    port = proxy.port
    with connect(proxy) as connection:
        connection.sendall(MESSAGE)
        read(connection, len(MESSAGE))
        proxy.behave(Fault.REFUSE)
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    proxy.behave(Fault.REFUSE)
    proxy.behave(Fault.PASS)
    assert proxy.port == port
    with connect(proxy) as connection:
        connection.sendall(MESSAGE)
        assert read(connection, len(MESSAGE)) == MESSAGE


def test_reset_comes_in_the_middle_of_the_answer_and_as_often_as_told(proxy: FaultProxy) -> None:
    proxy.behave(Fault.RESET, bytes_before_reset=10, times=2)
    for _ in range(2):
        with connect(proxy) as connection:
            connection.sendall(MESSAGE)
            with pytest.raises(ConnectionResetError):  # it may overtake the first bytes
                read(connection, len(MESSAGE))
    with connect(proxy) as connection:
        connection.sendall(MESSAGE)
        assert read(connection, len(MESSAGE)) == MESSAGE
    assert proxy.connections == 3


def test_slow_sends_a_byte_at_a_time_until_it_passes(proxy: FaultProxy) -> None:
    proxy.behave(Fault.SLOW, pause_s=0.1)
    with connect(proxy) as connection:
        started = time.monotonic()
        connection.sendall(MESSAGE)
        assert read(connection, 4) == MESSAGE[:4]
        assert time.monotonic() - started > 0.25
        proxy.behave(Fault.PASS)
        assert read(connection, len(MESSAGE) - 4) == MESSAGE[4:]
        assert time.monotonic() - started < TIMEOUT_S


def test_garbage_answers_for_the_server(proxy: FaultProxy) -> None:
    proxy.behave(Fault.GARBAGE)
    with connect(proxy) as connection:
        connection.sendall(MESSAGE)
        assert read(connection, len(GARBAGE)) == GARBAGE
        proxy.behave(Fault.PASS)  # the server has missed a message
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_half_closed_ends_its_direction_and_goes_on_reading(proxy: FaultProxy) -> None:
    proxy.behave(Fault.HALF_CLOSED)
    with connect(proxy) as connection:
        for _ in range(3):
            connection.sendall(MESSAGE)
            assert connection.recv(1) == b""


def test_silent_reads_and_never_answers(proxy: FaultProxy) -> None:
    proxy.behave(Fault.SILENT)
    with connect(proxy) as connection:
        connection.settimeout(0.2)
        for _ in range(2):
            connection.sendall(MESSAGE)
            with pytest.raises(TimeoutError):
                connection.recv(1)


@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.name)
def test_end_leaves_no_thread_and_no_connection(proxy: FaultProxy, fault: Fault) -> None:
    with FaultProxy(proxy.address) as inner, connect(inner) as connection:
        inner.behave(fault)
        if fault is not Fault.REFUSE:
            connection.sendall(MESSAGE)
    assert [thread.name for thread in threading.enumerate()].count(THREAD_NAME) == 1  # the outer one's
    with pytest.raises(ConnectionRefusedError):
        connect(inner)


def test_server_that_is_gone_ends_the_connection() -> None:
    with socket.create_server((HOST, 0)) as gone:
        address = f"{HOST}:{gone.getsockname()[1]}"
    with FaultProxy(address) as proxy, connect(proxy) as connection:
        assert connection.recv(1) == b""
