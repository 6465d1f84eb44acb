"""The end of a gateway: what is in flight is finished, nothing new begins, nothing stays."""

from __future__ import annotations

import http.client
import itertools
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing
from pathlib import Path

import psutil
import pytest
from lychee_server import TritonServer

from .running_gateway import STOP_TIMEOUT_S, RunningGateway, run_gateway

pytestmark = pytest.mark.triton

# Longer than a test waits for the end: an end in time is none by these limits.
PATIENT = ("--timeout-s", "600", "--drain-timeout-s", "600")


NUMBERS = itertools.count()


def send_large_call(gateway: RunningGateway, documents: int) -> http.client.HTTPConnection:
    """Send a call with new texts; its answer takes a while."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=600)
    texts = [f"{next(NUMBERS)} cats" for _ in range(documents)]
    body = json.dumps({"query": "cat", "documents": texts})
    connection.request("POST", "/v1/rerank", body, {"content-type": "application/json"})
    return connection


def wait_until_running(gateway: RunningGateway, calls: int = 1) -> None:
    """Return when the gateway computes so many calls."""
    while f'lychee_gateway_calls_running{{model="default"}} {calls}.0' not in gateway.get("/metrics")[1]:
        assert gateway.process.poll() is None
        time.sleep(0.05)


def wait_until_refused(gateway: RunningGateway) -> None:
    """Return when new calls are refused: with an answer that says when to come again, and ends its connection."""
    deadline_s = time.monotonic() + STOP_TIMEOUT_S
    while True:
        with closing(http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)) as connection:
            connection.request("GET", "/v1/models")
            response = connection.getresponse()
            if response.status == 503:
                assert response.headers["connection"] == "close"
                assert response.headers["retry-after"]
                return
        assert time.monotonic() < deadline_s


class KeepAliveCaller(threading.Thread):
    """Calls again and again on connections that it keeps, until nobody listens.

    Attributes:
        statuses: Of its answers.
        lost: Why calls that it had sent on connections with an answer got none.
    """

    def __init__(self, port: int) -> None:
        super().__init__()
        self.statuses: list[int] = []
        self.lost: list[str] = []
        self._port = port

    def run(self) -> None:
        """See Thread."""
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
            try:
                connection.connect()
            except OSError:
                return
            with closing(connection):
                self._call(connection)

    def _call(self, connection: http.client.HTTPConnection) -> None:
        answered = False  # the system takes new connections for a listener that is about to close
        while connection.sock is not None:  # http.client closes it where the answer says so
            body = json.dumps({"query": "cat", "documents": [f"{next(NUMBERS)} cats"]})
            try:
                connection.request("POST", "/v1/rerank", body, {"content-type": "application/json"})
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException) as error:
                self.lost += [repr(error)] if answered else []
                return
            answered = True
            self.statuses.append(response.status)
            if response.status == 503:
                time.sleep(0.5)  # less than it was told


def test_no_caller_with_an_open_connection_loses_a_call(server: TritonServer, tmp_path: Path) -> None:
    with run_gateway(tmp_path, server.grpc_url, "--no-web", *PATIENT) as gateway:
        gateway.wait_for("/health/ready", 200)
        callers = [KeepAliveCaller(gateway.port) for _ in range(20)]
        for caller in callers:
            caller.start()
        while not all(caller.statuses for caller in callers):
            time.sleep(0.05)
        gateway.process.terminate()
        for caller in callers:
            caller.join()
        assert gateway.process.wait(STOP_TIMEOUT_S) == 0
    assert [caller.lost for caller in callers if caller.lost] == []
    assert {status for caller in callers for status in caller.statuses} <= {200, 503}


def test_a_call_in_flight_is_finished_before_the_end(server: TritonServer, tmp_path: Path) -> None:
    with run_gateway(tmp_path, server.grpc_url, "--no-web", *PATIENT) as gateway:
        gateway.wait_for("/health/ready", 200)
        with closing(send_large_call(gateway, 1000)) as call:
            wait_until_running(gateway)
            gateway.process.terminate()
            wait_until_refused(gateway)
            assert gateway.process.poll() is None  # new calls are refused while the old one still runs
            response = call.getresponse()
            assert response.status == 200
            assert len(json.loads(response.read())["results"]) == 1000
        assert gateway.process.wait(STOP_TIMEOUT_S) == 0
        assert not psutil.pid_exists(gateway.process.pid)
    messages = [line["message"] for line in gateway.lines()]
    assert messages.index("stopping") < messages.index("request", messages.index("stopping"))
    errors = [json.loads(line) for line in (tmp_path / "gateway.err").read_text(encoding="utf-8").splitlines()]
    assert {error["status"] for error in errors} <= {503}  # of the new calls


def test_a_refused_request_whose_body_comes_late_gets_its_answer(server: TritonServer, tmp_path: Path) -> None:
    body = b'{"query": "a cat", "documents": ["a cat"]}'
    with run_gateway(tmp_path, server.grpc_url, "--no-web", *PATIENT) as gateway:
        gateway.wait_for("/health/ready", 200)
        address = ("127.0.0.1", gateway.port)
        with closing(send_large_call(gateway, 1000)) as call, socket.create_connection(address) as late:
            wait_until_running(gateway)
            gateway.process.terminate()
            wait_until_refused(gateway)
            late.sendall(b"POST /v1/rerank HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n" % len(body))
            for half in (body[:20], body[20:]):
                time.sleep(0.2)
                late.sendall(half)  # a connection that was closed already is reset by the first, and takes no second
            assert late.recv(65536).startswith(b"HTTP/1.1 503 ")
            assert call.getresponse().status == 200


def test_an_idle_gateway_ends_at_once_although_a_browser_stays(server: TritonServer, tmp_path: Path) -> None:
    with (
        run_gateway(tmp_path, server.grpc_url, "--web", *PATIENT) as gateway,
        closing(http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)) as tab,
    ):
        tab.request("GET", "/")
        answer = tab.getresponse()
        assert b"page/shell/app.js" in answer.read()
        assert answer.status == 200
        gateway.process.send_signal(signal.SIGINT)
        assert gateway.process.wait(STOP_TIMEOUT_S) == 0


def test_what_takes_longer_than_the_drain_is_cut(server: TritonServer, tmp_path: Path) -> None:
    with run_gateway(tmp_path, server.grpc_url, "--no-web", "--drain-timeout-s", "0.5") as gateway:
        gateway.wait_for("/health/ready", 200)
        with ExitStack() as calls:
            for _ in range(4):
                calls.enter_context(closing(send_large_call(gateway, 1000)))
            wait_until_running(gateway, 4)
            gateway.process.terminate()
            assert gateway.process.wait(STOP_TIMEOUT_S) == 0
    messages = [line["message"] for line in gateway.lines()]
    assert any(message.startswith("Cancel") for message in messages)


def test_a_second_signal_ends_now(server: TritonServer, tmp_path: Path) -> None:
    with run_gateway(tmp_path, server.grpc_url, "--no-web") as gateway:
        gateway.wait_for("/health/ready", 200)
        with closing(send_large_call(gateway, 1000)):
            wait_until_running(gateway)
            gateway.process.terminate()
            wait_until_refused(gateway)
            gateway.process.terminate()
            assert gateway.process.wait(STOP_TIMEOUT_S) == 128 + signal.SIGTERM


def test_a_taken_port_names_its_holder_and_the_option(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        command = [sys.executable, "-m", "lychee_server.gateway", "--no-web", "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f"Port {port} on 127.0.0.1 is not free" in done.stderr
    assert f"(pid {psutil.Process().pid}) holds it" in done.stderr
    assert "choose another port with --port" in done.stderr
