"""The end of a gateway: what is in flight is finished, nothing new begins, nothing stays."""

from __future__ import annotations

import http.client
import itertools
import json
import signal
import socket
import subprocess
import sys
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
    while f"lychee_gateway_calls_running {calls}.0" not in gateway.get("/metrics")[1]:
        assert gateway.process.poll() is None
        time.sleep(0.05)


def wait_until_refused(gateway: RunningGateway) -> None:
    """Return when nobody listens on the port any more."""
    deadline_s = time.monotonic() + STOP_TIMEOUT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", gateway.port), timeout=5).close()
        except ConnectionRefusedError:
            return
        except OSError:
            continue  # taken by the system in the moment of closing
        assert time.monotonic() < deadline_s


def test_a_call_in_flight_is_finished_before_the_end(server: TritonServer, tmp_path: Path) -> None:
    with run_gateway(tmp_path, server.grpc_url, "--no-web", *PATIENT) as gateway:
        gateway.wait_for("/health/ready", 200)
        with closing(send_large_call(gateway, 1000)) as call:
            wait_until_running(gateway)
            gateway.process.terminate()
            wait_until_refused(gateway)
            assert gateway.process.poll() is None  # new connections are refused while the call still runs
            response = call.getresponse()
            assert response.status == 200
            assert len(json.loads(response.read())["results"]) == 1000
        assert gateway.process.wait(STOP_TIMEOUT_S) == 0
        assert not psutil.pid_exists(gateway.process.pid)
    messages = [line["message"] for line in gateway.lines()]
    assert messages.index("stopping") < messages.index("request", messages.index("stopping"))
    assert (tmp_path / "gateway.err").read_text(encoding="utf-8") == ""


def test_an_idle_gateway_ends_at_once_although_a_browser_stays(server: TritonServer, tmp_path: Path) -> None:
    with (
        run_gateway(tmp_path, server.grpc_url, "--web", *PATIENT) as gateway,
        closing(http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)) as tab,
    ):
        tab.request("GET", "/gradio_api/heartbeat/somesession")
        assert tab.getresponse().status == 200
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
