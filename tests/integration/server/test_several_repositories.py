"""One `lychee load` of several models: each is called, fails, comes back and is upgraded by itself."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from checkpoints.changed_weights import change_weights
from checkpoints.exports import export_once
from checkpoints.inputs import TEXTS
from lychee_client import LycheeClient, LycheeError
from lychee_client.repository import read_manifest
from lychee_server import state
from lychee_server.local_http import exchange
from lychee_server.processes import find_processes
from lychee_server.supervision import stop_everything

from .commands import FREE_PORTS, read_state, run

pytestmark = pytest.mark.triton
WAIT_S = 120.0
QUERY = "the yellow cat"
Scores = list[float]


def wait_for(condition: Callable[[], object]) -> None:
    ends_at_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < ends_at_s
        time.sleep(0.1)


def rank(url: str, model: str | None = None) -> Scores:
    with LycheeClient(url, timeout_s=WAIT_S, embedding_cache=None, model=model) as client:
        results = client.rerank(QUERY, list(TEXTS)).results
    return [result.relevance_score for result in sorted(results, key=lambda result: result.index)]


def gateway_url() -> str:
    gateway = read_state().gateway
    assert gateway is not None
    return f"http://127.0.0.1:{gateway.port}"


def is_ready(model: str) -> bool:
    gateway = read_state().gateway
    assert gateway is not None
    return exchange("127.0.0.1", gateway.port, "GET", f"/health/ready?model={model}", timeout_s=10.0)[0] == 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("several")


@pytest.fixture(autouse=True)
def own_state(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's running server out of the tests; the state outlives a test here."""
    monkeypatch.setenv("LYCHEE_STATE_DIR", str(folder / "state"))


@pytest.fixture(scope="module")
def repositories(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return two exports; the second has kept a third."""
    first = Path(shutil.copytree(export_once("clip", tmp_path_factory), folder / "first"))
    second, third = change_weights(first, folder / "second"), change_weights(first, folder / "third", seed=1)
    manifest = read_manifest(third)
    assert manifest is not None
    shutil.move(third, second / "client_assets" / "previous" / str(manifest.version))
    return first, second


@pytest.fixture(scope="module")
def loaded(folder: Path, repositories: tuple[Path, Path]) -> Iterator[str]:
    """Serve both, and return what the command printed."""
    first, second = repositories
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LYCHEE_STATE_DIR", str(folder / "state"))
        names = [
            "--repository",
            str(first),
            "--repository",
            f"other={second}",
            "--served-model-name",
            "other=rerank-v3.5",
        ]
        finished = run("load", *names, *FREE_PORTS, "--config-name", "cpu")
        assert finished.returncode == 0, finished.stdout + finished.stderr
        yield finished.stdout
        marker = state.own_marker()
        assert run("stop").returncode == 0
        assert find_processes(marker) == []
        assert not list(Path("/dev/shm").glob(f"{marker}*"))


@pytest.fixture(scope="module")
def scores(loaded: str) -> dict[str, Scores]:
    """Return what each model says, asked without the gateway."""
    found = {triton.name: rank(f"127.0.0.1:{triton.grpc_port}") for triton in read_state().tritons}
    assert list(found) == ["first", "other"]
    assert max(abs(one - other) for one, other in zip(*found.values(), strict=True)) > 0.01
    return found


def test_each_name_gets_its_model(loaded: str, scores: dict[str, Scores]) -> None:
    first, other = read_state().tritons
    for triton in (first, other):
        assert f"gRPC     127.0.0.1:{triton.grpc_port}  of {triton.name}" in loaded
        assert Path(triton.log_path).name == f"triton.{triton.name}.log"
    url = gateway_url()
    asked = {"first": "first", None: "first", "other": "other", "rerank-v3.5": "other"}
    for name, model in asked.items():
        assert rank(url, name) == pytest.approx(scores[model], abs=1e-5)


def test_both_are_told_of(loaded: str) -> None:
    status = run("status")
    assert status.returncode == 0
    assert status.stdout.startswith("Ready: 2 models\n")
    told: dict[str, Any] = json.loads(run("status", "--json").stdout)
    assert [triton["name"] for triton in told["tritons"]] == ["first", "other"]
    assert told["pid"] == told["tritons"][0]["pid"]
    assert {process["name"] for process in told["processes"]} >= {"first tritonserver", "other tritonserver"}
    doctor = json.loads(run("doctor", "--url", told["tritons"][1]["grpc_url"], "--json").stdout)
    found = {check["name"]: check["verdict"] for check in doctor["checks"]}
    ports = [triton.grpc_port for triton in read_state().tritons]
    assert [found[f"port {port}"] for port in ports] == ["ok", "ok"]
    assert (found["state"], found["repository"]) == ("ok", "ok")
    assert "other tritonserver" in run("memory").stdout


def test_a_model_that_fails_costs_the_other_nothing_and_comes_back(loaded: str, scores: dict[str, Scores]) -> None:
    url, failed, over = gateway_url(), [], threading.Event()
    other = read_state().tritons[1]

    def call() -> None:
        while not over.is_set():
            try:
                assert rank(url, "first") == pytest.approx(scores["first"], abs=1e-5)
            except (AssertionError, LycheeError) as error:
                failed.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    try:
        os.kill(other.pid, signal.SIGKILL)
        wait_for(lambda: not is_ready("other"))
        assert is_ready("first")
        wait_for(lambda: is_ready("other"))
    finally:
        over.set()
        thread.join(WAIT_S)
    assert failed == []
    known = read_state()
    assert known.tritons[1].pid != other.pid
    assert known.restarts.keys() == {"triton other"}
    assert rank(url, "other") == pytest.approx(scores["other"], abs=1e-5)


def test_one_is_upgraded_and_the_other_left_alone(loaded: str, scores: dict[str, Scores]) -> None:
    before = read_state().tritons
    refused = run("upgrade")
    assert (refused.returncode, "name one with --model: first, other" in refused.stderr) == (1, True)
    rolled = run("rollback", "--model", "other")
    assert rolled.returncode == 0, rolled.stdout + rolled.stderr
    first, other = read_state().tritons
    assert (first.pid, first.version) == (before[0].pid, before[0].version)
    assert other.version != before[1].version
    changed = rank(gateway_url(), "other")
    assert max(abs(one - another) for one, another in zip(changed, scores["other"], strict=True)) > 0.01
    assert rank(gateway_url(), "first") == pytest.approx(scores["first"], abs=1e-5)
    assert run("rollback", "--repository", before[1].repository, "--to", str(before[1].version)).returncode == 0
    assert rank(gateway_url(), "other") == pytest.approx(scores["other"], abs=1e-5)


def test_a_broken_second_model_leaves_nothing(
    repositories: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LYCHEE_STATE_DIR", str(tmp_path / "state"))
    broken = Path(shutil.copytree(repositories[0], tmp_path / "broken"))
    for path in broken.glob("text_encoder/*/model.onnx"):
        path.write_bytes(b"not a model")
    try:
        failed = run("load", "--repository", str(repositories[0]), "--repository", str(broken), *FREE_PORTS)
        assert failed.returncode == 1
        assert "text_encoder" in failed.stderr
        assert find_processes(state.own_marker()) == []
        assert run("status").returncode == 3
        same = run("load", "--repository", str(repositories[0]), "--repository", f"b={repositories[0]}", *FREE_PORTS)
        assert (same.returncode, "expected a folder for each" in same.stderr) == (2, True)
    finally:
        stop_everything(state.read_state())
