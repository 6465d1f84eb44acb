"""One server for all tests of this folder, as users start it, and the answers of its own API to compare with."""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from rankers.ranker import KEY, Native

ROOT = Path(__file__).parents[2]
MAIN = ROOT / ".venv" / "bin"
OTHER_VERSIONS = ROOT / ".clients" / "other"
FREE_PORTS = ("--port", "0", "--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
TIMEOUT_S = 300
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")

# Before anything is imported: no package may ask another site for prices or tell one what is used.
os.environ |= {
    "DO_NOT_TRACK": "1",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "HF_HUB_OFFLINE": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
}


@pytest.fixture(autouse=True, scope="session")
def _loopback_only() -> Iterator[None]:
    """Fail on every connection that leaves this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        assert not isinstance(address, tuple) or address[0] in ("127.0.0.1", "::1"), address
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded)
        for name in PROXIES:
            patch.delenv(name, raising=False)
        yield


def _run(*arguments: str, state_dir: Path) -> str:
    """Return what a command of the main environment prints."""
    environment = os.environ | {"LYCHEE_STATE_DIR": str(state_dir)}
    finished = subprocess.run(
        [MAIN / "lychee", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.fixture(scope="session")
def _status(_loopback_only: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Start Triton and the gateway, and return what `lychee status` knows of them."""
    state_dir = tmp_path_factory.mktemp("lychee") / "state"
    try:
        _run("load", "--config-name", "cpu", "--no-web", *FREE_PORTS, state_dir=state_dir)
        yield json.loads(_run("status", "--json", state_dir=state_dir))
    finally:
        _run("stop", state_dir=state_dir)


@pytest.fixture(scope="session")
def gateway_url(_status: dict[str, Any]) -> str:
    """Return the gateway's address: http://127.0.0.1:PORT."""
    return str(_status["gateway"]["url"])


@pytest.fixture(scope="session")
def url(_status: dict[str, Any]) -> str:
    """Return Triton's address for gRPC: 127.0.0.1:PORT."""
    return str(_status["grpc_url"])


@pytest.fixture(scope="session")
def keyed_gateway_url(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a second gateway before the same Triton, which wants the key `KEY`, and return its address."""
    log = tmp_path_factory.mktemp("keyed") / "gateway.log"
    command = [MAIN / "lychee", "gateway", "--triton-url", url, "--port", "0", "--no-web"]
    environment = os.environ | {"LYCHEE_GATEWAY_API_KEYS": KEY}
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
    try:
        address = f"http://127.0.0.1:{_wait_for(lambda: _read_port(log), process, log)}"
        _wait_for(lambda: httpx.get(f"{address}/health/ready", trust_env=False).is_success, process, log)
        yield address
    finally:
        process.terminate()
        process.wait(TIMEOUT_S)


def _read_port(log: Path) -> int | None:
    lines = [line for line in log.read_text(encoding="utf-8").splitlines() if '"listening"' in line]
    return int(json.loads(lines[0])["port"]) if lines else None


def _wait_for(condition: Callable[[], Any], process: subprocess.Popen[bytes], log: Path) -> Any:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not (found := condition()):
        assert process.poll() is None, log.read_text(encoding="utf-8")
        assert time.monotonic() < deadline_s, log.read_text(encoding="utf-8")
        time.sleep(0.1)
    return found


@pytest.fixture(scope="session")
def native(gateway_url: str) -> Iterator[Native]:
    """Ask the gateway's own route, and return its answer: what every client has to see."""
    with httpx.Client(base_url=gateway_url, timeout=TIMEOUT_S, trust_env=False) as http:

        def ask(query: str, documents: Sequence[Any], **options: Any) -> dict[str, Any]:
            answer = http.post("/v1/rerank", json={"query": query, "documents": documents, **options})
            assert answer.status_code == 200, answer.text
            return dict(answer.json())

        yield ask


@pytest.fixture(params=["pinned", "other"])
def version(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run a test with the versions of requirements.txt, and again with those of other_versions.txt."""
    if request.param == "pinned":
        yield request.param
    else:
        with _other_versions():
            yield request.param


@contextmanager
def _other_versions() -> Iterator[None]:
    """Import cohere and together from the folder of other versions, and the pinned ones again afterwards."""

    def take_out() -> dict[str, Any]:
        names = [name for name in sys.modules if name.partition(".")[0] in ("cohere", "together")]
        return {name: sys.modules.pop(name) for name in names}

    pinned = take_out()
    sys.path.insert(0, str(OTHER_VERSIONS))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(OTHER_VERSIONS))
        take_out()
        sys.modules |= pinned
