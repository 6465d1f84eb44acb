"""The logs of a real `lychee load` while it is busy: they stay small, and a real rsyslog ships every line of them."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from deployment import ROOT, TOOLS, find_tool
from lychee_server import state
from lychee_server.defaults import MIB
from lychee_server.supervision import stop_everything

pytestmark = pytest.mark.triton
LYCHEE = str(Path(sys.executable).parent / "lychee")
RECIPE = ROOT / "deploy" / "logs" / "rsyslog.conf"
FREE_PORTS = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0", "--port", "0"]
WAIT_S = 300.0
REQUESTS = 3000
SPARE_BYTES = 100_000  # what is written until somebody looks


class Collector:
    """What a recipe ships to: a TCP server that takes lines."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.lines: list[dict[str, Any]] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        with connection, connection.makefile(encoding="utf-8") as lines:
            for line in lines:
                self.lines.append(json.loads(line))

    def close(self) -> None:
        self._listener.close()


def wait_for(condition: Callable[[], bool], what: Callable[[], str]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.1)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the state folder of a server that runs and logs much."""
    monkeypatch.setenv("LYCHEE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("LYCHEE_LOG_MB", "1")
    command = [LYCHEE, "load", "--repository", str(ROOT / "model_repository"), *FREE_PORTS]
    command += ["--no-web", "--config-name", "cpu", "--log-level", "VERBOSE"]
    try:
        loaded = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
        assert loaded.returncode == 0, loaded.stderr
        yield tmp_path / "state"
    finally:
        stop_everything(state.read_state())


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture
def shipper(folder: Path, tmp_path: Path, collector: Collector) -> Iterator[None]:
    """Run rsyslog with the recipe."""
    program = find_tool("rsyslogd")
    libraries = TOOLS / "usr" / "lib" / "x86_64-linux-gnu"
    recipe = RECIPE.read_text(encoding="utf-8")
    for old, new in (("/run/lychee", str(folder)), ("logs.example.org", "127.0.0.1"), ("5140", str(collector.port))):
        assert old in recipe
        recipe = recipe.replace(old, new)
    (tmp_path / "spool").mkdir()
    configuration = tmp_path / "rsyslog.conf"
    configuration.write_text(f'global(workDirectory="{tmp_path / "spool"}")\n{recipe}', encoding="utf-8")
    command = [str(program), "-n", "-f", str(configuration), "-i", str(tmp_path / "rsyslog.pid")]
    command += ["-M", f"{libraries / 'rsyslog'}:/usr/lib/{libraries.name}/rsyslog"]
    environment = os.environ | {"LD_LIBRARY_PATH": str(libraries)}
    output = tmp_path / "rsyslog.out"
    checked = subprocess.run([*command[:1], "-N1", *command[2:]], env=environment, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    with output.open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    yield
    process.terminate()
    process.wait(WAIT_S)


def send_requests(first: int, last: int) -> None:
    known = state.read_state()
    assert known is not None
    assert known.gateway is not None
    connection = http.client.HTTPConnection("127.0.0.1", known.gateway.port, timeout=WAIT_S)
    for number in range(first, last):
        connection.request("GET", "/v1/nothing", headers={"x-request-id": f"ship-{number}"})
        response = connection.getresponse()
        assert response.status == 404
        response.read()
    connection.close()


def read_ids(folder: Path) -> list[str]:
    """Return the ids of our requests in the gateway's log and its older files, oldest first."""
    files = [folder / f"gateway.log.{number}" for number in range(4, 0, -1)] + [folder / "gateway.log"]
    lines = [line for file in files if file.exists() for line in file.read_text(encoding="utf-8").splitlines()]
    return [found for line in map(json.loads, lines) if (found := line.get("request_id", "")).startswith("ship-")]


@pytest.mark.usefixtures("shipper")
def test_the_logs_stay_small_and_every_line_arrives(folder: Path, collector: Collector) -> None:
    def shipped() -> list[dict[str, Any]]:
        return [line for line in list(collector.lines) if str(line.get("request_id")).startswith("ship-")]

    for first in range(0, REQUESTS, 300):
        send_requests(first, first + 300)
        wait_for(lambda last=first + 300: len(shipped()) >= last, lambda: f"{len(shipped())} lines arrived")  # type: ignore[misc]
    expected = [f"ship-{number}" for number in range(REQUESTS)]
    assert [line["request_id"] for line in shipped()] == expected
    kept = read_ids(folder)
    assert kept == expected[-len(kept) :]
    assert (folder / "gateway.log.1").exists()
    line = shipped()[0]
    assert (line["service"], line["level"], line["status"], line["method"]) == ("lychee-gateway", "WARNING", 404, "GET")
    assert isinstance(line["latency_ms"], float | int)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])

    triton = [line for line in list(collector.lines) if line["service"] == "lychee-triton"]
    assert {line["level"] for line in triton} >= {"I"}
    assert all(line["message"] for line in triton)
    wait_for((folder / "triton.log.1").exists, lambda: "triton.log is not large yet")
    for name in ("gateway.log", "triton.log"):
        files = list(folder.glob(f"{name}*"))
        assert len(files) <= 5
        assert max(file.stat().st_size for file in files) < MIB // 5 + SPARE_BYTES
