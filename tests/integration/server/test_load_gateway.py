"""`lychee load` with its gateway and page, as a user runs it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from lychee_server import state
from lychee_server.execution import has_gpu
from lychee_server.processes import find_processes
from lychee_server.supervision import stop_everything

from .commands import FREE_PORTS, LYCHEE, load, run

pytestmark = pytest.mark.triton


def read_gateway() -> state.GatewayState:
    known = state.read_state()
    assert known is not None
    assert known.gateway is not None
    return known.gateway


def ask(
    gateway: state.GatewayState, method: str, path: str, body: dict[str, object] | None = None
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@pytest.fixture(autouse=True)
def _stop_whatever_is_left(own_state: None) -> Iterator[None]:
    yield
    stop_everything(state.read_state())


def test_one_command_starts_triton_rest_and_page_and_one_stops_them(repository: Path) -> None:
    loaded = load(repository, "--max-img-size", "256", "--flash-attn", "--log-level", "ERROR")
    assert loaded.returncode == 0, loaded.stderr
    gateway = read_gateway()
    url = f"http://127.0.0.1:{gateway.port}"
    for expected in (
        f"page     {url}",
        f"REST     {url}/v1/rerank",
        "golden pairs: off by",
        "--max-img-size: ",
        "no effect",
    ):
        assert expected in loaded.stdout

    status, page = ask(gateway, "GET", "/")
    assert (status, b"<html" in page) == (200, True)
    status, answer = ask(gateway, "POST", "/v1/rerank", {"query": "一只猫", "documents": ["a cup of coffee", "小猫"]})
    assert status == 200, answer
    assert json.loads(answer)["results"][0]["index"] == 1
    assert json.loads(ask(gateway, "GET", "/health")[1])["status"] == "ok"

    shown = run("status")
    assert (shown.returncode, url in shown.stdout) == (0, True)
    told = json.loads(run("status", "--json").stdout)["gateway"]
    assert (told["url"], told["problem"], told["pid"]) == (url, None, gateway.pid)

    known = state.read_state()
    assert known is not None
    stopped = run("stop")
    assert stopped.returncode == 0
    assert f"Stopped the gateway with pid {gateway.pid}" in stopped.stdout
    assert not gateway.is_running()
    assert find_processes(known.marker) == []


def test_no_web_keeps_rest_alone(repository: Path) -> None:
    loaded = load(repository, "--no-web")
    assert loaded.returncode == 0, loaded.stderr
    gateway = read_gateway()
    assert b"page/shell/app.js" not in ask(gateway, "GET", "/")[1]
    assert ask(gateway, "GET", "/health/ready")[0] == 200
    os.kill(gateway.pid, signal.SIGKILL)
    assert ask(gateway, "GET", "/health/live")[0] == 200  # by the next one, whom the caller waited for
    assert read_gateway().pid != gateway.pid
    assert "restarts gateway 1" in run("status").stdout
    assert run("stop").returncode == 0


def test_the_gateway_that_load_starts_has_its_settings_from_the_file(repository: Path, tmp_path: Path) -> None:
    file = tmp_path / "lychee.toml"
    file.write_text('[load]\nlog-level = "debug"\nweb = false\n[gateway]\nserved-model-name = ["reranker"]\n')
    named = ["--config", str(file), "load", "--repository", str(repository), *FREE_PORTS, "--port", "0"]
    loaded = run(*named, "--config-name", "cpu")
    assert loaded.returncode == 0, loaded.stderr
    assert "reranker" in {model["id"] for model in json.loads(ask(read_gateway(), "GET", "/v1/models")[1])["data"]}
    known = state.read_state()
    assert known is not None
    log = Path(known.first.log_path).read_text(encoding="utf-8", errors="replace")
    assert "Verbose" in log or re.search(r"^I\d{4} ", log, re.MULTILINE)  # DEBUG is Triton's verbose
    if not has_gpu():
        assert [line for line in log.splitlines() if re.match(r"[EW]\d{4} ", line)] == []


def test_a_taken_port_names_its_holder_and_the_option(repository: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        refused = run("load", "--repository", str(repository), *FREE_PORTS, "--port", str(port))
    assert refused.returncode == 1
    assert f"Port {port} on 127.0.0.1 is not free" in refused.stderr
    assert f"(pid {os.getpid()}) holds it" in refused.stderr
    assert "--port" in refused.stderr
    assert state.read_state() is None


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_a_foreground_load_takes_its_gateway_with_it(repository: Path, sent: signal.Signals) -> None:
    command = [LYCHEE, "load", "--foreground", "--repository", str(repository), *FREE_PORTS, "--port", "0", "--no-web"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            assert any("Ctrl-C stops it" in line for line in iter(process.stdout.readline, ""))
            known = state.read_state()
            assert known is not None
            gateway = read_gateway()
            running = [psutil.Process(gateway.pid), *find_processes(known.marker)]
            process.send_signal(sent)
            process.wait(60)
        finally:
            process.kill()
    assert psutil.wait_procs(running, timeout=30)[1] == []
