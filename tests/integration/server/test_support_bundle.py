"""The support bundle of a real server that was told to log texts, has keys, and has met some trouble."""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from lychee_server import state
from lychee_server.supervision import stop_everything

pytestmark = pytest.mark.triton
LYCHEE = str(Path(sys.executable).parent / "lychee")
FREE_PORTS = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0", "--port", "0"]
CANARY = "canary4711"
KEY = f"key-{CANARY}"
WAIT_S = 600.0


@pytest.fixture(autouse=True)
def _stop_whatever_is_left(own_state: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LYCHEE_GATEWAY_API_KEYS", KEY)
    monkeypatch.setenv("LYCHEE_GATEWAY_LOG_CONTENT", "true")
    yield
    stop_everything(state.read_state())


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([LYCHEE, *arguments], capture_output=True, text=True, timeout=WAIT_S, check=False)


def ask(port: int, method: str, path: str, body: object = None, key: str = KEY) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"content-type": "application/json", "x-api-key": key})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def read(bundle: bytes) -> dict[str, str]:
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def test_it_holds_what_helps_and_nothing_that_was_sent(repository: Path, photos: Path, tmp_path: Path) -> None:
    loaded = run("load", "--repository", str(repository), *FREE_PORTS, "--no-web", "--log-level", "INFO")
    assert loaded.returncode == 0, loaded.stderr
    known = state.read_state()
    assert known is not None
    assert known.gateway is not None
    port = known.gateway.port
    photo = "data:image/jpeg;base64," + base64.b64encode((photos / "cat.jpg").read_bytes()).decode()
    ask(port, "POST", "/v1/rerank", {"query": CANARY, "documents": [CANARY, {"text": CANARY, "image": photo}]})
    assert ask(port, "POST", "/v1/rerank", {"query": CANARY, CANARY: CANARY}, key=f"{KEY}-wrong")[0] == 401
    assert CANARY in (tmp_path / "state" / "gateway.log").read_text(encoding="utf-8")  # there is something to hide

    assert ask(port, "GET", "/v1/support-bundle", key="wrong")[0] == 401
    status, content = ask(port, "GET", "/v1/support-bundle")
    assert status == 200
    written = run("doctor", "--url", f"127.0.0.1:{known.first.grpc_port}", "--bundle", str(tmp_path / "bundle.zip"))
    assert written.returncode == 0, written.stdout + written.stderr
    for files in (read(content), read((tmp_path / "bundle.zip").read_bytes())):
        for name, text in files.items():
            for hidden in (CANARY, known.triton_key, photo[40:80]):
                assert hidden not in text, name
            assert not name.endswith(".missing.txt"), text
            assert name in written.stdout or name in ("README.txt", "served.json")  # the second is the gateway's
        expected = {"versions.json", "server.json", "configuration.json", "repository/manifest.json"}
        expected |= {"triton-statistics.json", "triton-metrics.txt", "gateway-metrics.txt"}
        expected |= {f"logs/{log}" for log in ("gateway.log", "gateway-errors.log", "triton.log", "supervisor.log")}
        assert expected <= set(files)
        assert json.loads(files["configuration.json"])["settings"]["port"] == port
        assert json.loads(files["configuration.json"])["settings"]["log_content"] is True
        assert json.loads(files["server.json"])["running"] is True
        assert '"route": "/v1/rerank"' in files["logs/gateway.log"]
        assert "text_encoder" in files["triton-statistics.json"]
        assert "lychee_gateway_requests_total" in files["gateway-metrics.txt"]
    assert os.stat(tmp_path / "bundle.zip").st_mode & 0o077 == 0
