"""`lychee upgrade` and `lychee rollback` under load: no call fails or mixes models, and what fails changes nothing."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from checkpoints.changed_weights import change_weights, damage_weights
from checkpoints.exports import export_once
from checkpoints.inputs import TEXTS, make_images
from lychee_client import AsyncLycheeClient, Image, LycheeClient, RerankResponse
from lychee_client.exports import list_exports
from lychee_client.repository import read_manifest
from lychee_server import LycheeServerError, state
from lychee_server.local_http import fetch
from lychee_server.processes import find_processes, is_server
from lychee_server.supervision import UpgradeRequest, ask_for_upgrade, stop_everything

from .commands import FREE_PORTS, LYCHEE, read_state, run

pytestmark = pytest.mark.triton
TIMEOUT_S = 60.0
QUERY = "the yellow cat"
PHOTOS = [Image.from_pil(image) for image in make_images()]
DOCUMENTS = [*TEXTS, *PHOTOS]

Scores = dict[int, float]
Rank = Callable[[], Scores]


def version_of(repository: Path) -> int:
    manifest = read_manifest(repository)
    assert manifest is not None
    assert manifest.version is not None
    return manifest.version


def keep(repository: Path, export: Path) -> None:
    """Put an export among those that a repository has kept."""
    for model in sorted(path.parent for path in export.glob("*/config.pbtxt")):
        shutil.copytree(model, repository / "client_assets" / "previous" / str(version_of(export)) / model.name)


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Return two exports with the same tensors and other weights, and one whose weights are not those it names."""
    first = export_once("clip", tmp_path_factory)
    folder = tmp_path_factory.mktemp("exports")
    second = change_weights(first, folder / "second")
    broken = change_weights(first, folder / "broken", seed=1)
    damage_weights(broken, seed=2)
    return first, second, broken


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for the state of the server of this module."""
    return tmp_path_factory.mktemp("server")


@pytest.fixture(autouse=True)
def own_state(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's running server out of the tests; the state outlives a test here."""
    monkeypatch.setenv("LYCHEE_STATE_DIR", str(folder / "state"))


@pytest.fixture(scope="module")
def repository(exports: tuple[Path, Path, Path], folder: Path) -> Path:
    """Return a repository that has the first export, and has kept the others."""
    target = folder / "repository"
    shutil.copytree(exports[0], target)
    for export in exports[1:]:
        keep(target, export)
    return target


@pytest.fixture(scope="module")
def _stopped_at_the_end(folder: Path) -> Iterator[None]:
    yield
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LYCHEE_STATE_DIR", str(folder / "state"))
        stop_everything(state.read_state())


@pytest.fixture
def server(repository: Path, exports: tuple[Path, Path, Path], _stopped_at_the_end: None) -> state.ServerState:
    """Return a server of the first export, which the tests of this module share; it is loaded where none runs."""
    known = state.read_state()
    if known is None or not known.is_running():
        loaded = run("load", "--repository", str(repository), *FREE_PORTS, "--config-name", "cpu")
        assert loaded.returncode == 0, loaded.stdout + loaded.stderr
    elif known.first.version != version_of(exports[0]):
        assert run("rollback", "--to", str(version_of(exports[0]))).returncode == 0
    return read_state()


def gateway_port(server: state.ServerState) -> int:
    assert server.gateway is not None
    return server.gateway.port


def wait_for(condition: Callable[[], object], what: str) -> None:
    ends_at_s = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < ends_at_s, f"no {what} within {TIMEOUT_S:g} s"
        time.sleep(0.1)


def count_servers(server: state.ServerState) -> int:
    return sum(map(is_server, find_processes(server.marker)))


def read(response: RerankResponse) -> Scores:
    assert not response.errors
    return {result.index: result.relevance_score for result in response}


@contextmanager
def with_sdk(url: str, documents: list[Any] = DOCUMENTS, **options: Any) -> Iterator[Rank]:
    with LycheeClient(url, timeout_s=TIMEOUT_S, **options) as client:
        yield lambda: read(client.rerank(QUERY, documents))


def rank_once(url: str) -> Scores:
    with with_sdk(url) as rank:
        return rank()


@contextmanager
def with_async_sdk(url: str) -> Iterator[Rank]:
    async def rank(client: AsyncLycheeClient) -> Scores:
        several = await asyncio.gather(*(client.rerank(QUERY, DOCUMENTS) for _ in range(2)))
        assert read(several[0]) == pytest.approx(read(several[1]), abs=1e-5) or len({*map(version, several)}) == 2
        return read(several[1])

    with asyncio.Runner() as runner:
        client = AsyncLycheeClient(url, timeout_s=TIMEOUT_S, embedding_cache=None)
        try:
            yield lambda: runner.run(rank(client))
        finally:
            runner.run(client.aclose())


def version(response: RerankResponse) -> int | None:
    return response.model_version


@contextmanager
def with_rest(port: int) -> Iterator[Rank]:
    """Rank texts by the gateway, over one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    body = json.dumps({"query": QUERY, "documents": list(TEXTS)})

    def rank() -> Scores:
        connection.request("POST", "/v1/rerank", body, {"content-type": "application/json"})
        response = connection.getresponse()
        content = response.read()
        assert response.status == 200, content
        return {result["index"]: result["relevance_score"] for result in json.loads(content)["results"]}

    with closing(connection):
        yield rank


class Callers:
    """Call on and on, each in a thread, until the end of the block."""

    def __init__(self, server: state.ServerState) -> None:
        grpc, plain = f"127.0.0.1:{server.first.grpc_port}", f"http://127.0.0.1:{server.first.http_port}"
        self._ranks = {
            "gRPC": with_sdk(grpc, embedding_cache=None),
            "gRPC by name": with_sdk(f"localhost:{server.first.grpc_port}", embedding_cache=None),
            "gRPC without retries": with_sdk(grpc, embedding_cache=None, max_retries=0),
            "HTTP": with_sdk(plain, embedding_cache=None),
            "HTTP without retries": with_sdk(plain, embedding_cache=None, max_retries=0),
            "async gRPC": with_async_sdk(grpc),
            "async HTTP": with_async_sdk(plain),
            "gateway": with_sdk(f"http://127.0.0.1:{gateway_port(server)}"),
            "REST": with_rest(gateway_port(server)),
        }
        self.calls: list[tuple[str, float, float, Scores | Exception]] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=item) for item in self._ranks.items()]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        wait_for(lambda: {call[0] for call in self.calls} == set(self._ranks), "call of each kind")
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S)

    def _call(self, name: str, kind: AbstractContextManager[Rank]) -> None:
        with kind as rank:
            while not self._over.is_set():
                began_s = time.monotonic()
                try:
                    outcome: Scores | Exception = rank()
                except Exception as error:
                    outcome = error
                self.calls.append((name, began_s, time.monotonic() - began_s, outcome))
                time.sleep(0.02)

    def watch(self, calls: int = 3) -> None:
        """Wait until everyone has called so often from now on."""
        began_s = time.monotonic()
        for name in self._ranks:
            wait_for(
                lambda name=name: sum(call[0] == name and call[1] > began_s for call in self.calls) >= calls,
                f"{calls} calls of {name}",
            )

    def check(self, *known: Scores) -> None:
        """See that none failed, and that each answer is all of one model; and each model answered everyone."""
        failed = [f"{name}: {outcome!r}" for name, *_, outcome in self.calls if isinstance(outcome, Exception)]
        assert failed[:3] == []
        seen = set()
        for name, *_, outcome in self.calls:
            assert isinstance(outcome, dict)
            fits = [
                place
                for place, scores in enumerate(known)
                if outcome == pytest.approx({index: scores[index] for index in outcome}, abs=1e-5)
            ]
            assert len(fits) == 1, (name, outcome, known)
            seen.add((name, fits[0]))
        assert seen == {(name, place) for name in self._ranks for place in range(len(known))}


def test_no_call_fails_and_none_is_mixed_during_upgrade_and_rollback(
    server: state.ServerState, repository: Path, exports: tuple[Path, Path, Path]
) -> None:
    first, second = map(version_of, exports[:2])
    grpc = f"127.0.0.1:{server.first.grpc_port}"
    before = rank_once(grpc)
    with Callers(server) as callers:
        upgraded = run("upgrade", "--to", str(second))
        assert upgraded.returncode == 0, upgraded.stdout + upgraded.stderr
        for line in (f"loading export {second} beside the one that serves", "golden pairs: off by", "has ended"):
            assert line in upgraded.stdout
        callers.watch()
        after = rank_once(grpc)
        assert read_state().first.version == second
        assert f"export {second}, variant cpu" in run("status").stdout
        assert json.loads(run("status", "--json").stdout)["version"] == second
        assert version_of(repository) == second
        assert count_servers(server) == 1
        rolled = run("rollback", "--to", str(first))
        assert rolled.returncode == 0, rolled.stdout + rolled.stderr
        callers.watch()
        assert version_of(repository) == read_state().first.version == first
    assert max(abs(before[index] - after[index]) for index in before) > 0.01
    callers.check(before, after)
    assert b"nv_inference_count" in fetch("127.0.0.1", server.first.metrics_port, "GET", "/metrics")


def test_a_broken_export_changes_nothing(
    server: state.ServerState, repository: Path, exports: tuple[Path, Path, Path]
) -> None:
    first, broken = version_of(exports[0]), version_of(exports[2])
    before = rank_once(f"127.0.0.1:{server.first.grpc_port}")
    pid = server.first.pid
    with Callers(server) as callers:
        refused = run("upgrade", "--to", str(broken))
        assert refused.returncode == 1
        assert "The server's scores are off by" in refused.stderr
        assert f"Export {first} is the current one of {repository} again" in refused.stderr
        callers.watch()
    callers.check(before)
    assert version_of(repository) == first
    known = read_state()
    assert (known.first.pid, known.first.version, count_servers(known)) == (pid, first, 1)


def test_the_same_export_is_served_by_another_variant(server: state.ServerState) -> None:
    before = rank_once(f"127.0.0.1:{server.first.grpc_port}")
    with Callers(server) as callers:
        assert run("upgrade", "--config-name", "").returncode == 0
        callers.watch()
        known = read_state()
        assert (known.first.version, known.first.config_name) == (server.first.version, None)
        assert known.first.pid != server.first.pid
        assert run("upgrade", "--config-name", "cpu").returncode == 0
        callers.watch()
    failed = [call for call in callers.calls if isinstance(call[3], Exception)]
    assert failed == []
    assert rank_once(f"127.0.0.1:{server.first.grpc_port}") == pytest.approx(before, abs=1e-5)


def test_one_upgrade_at_a_time_and_it_ends_without_who_asked_for_it(server: state.ServerState) -> None:
    asking = subprocess.Popen([LYCHEE, "upgrade"], stdout=subprocess.PIPE, text=True)
    assert asking.stdout is not None
    assert "preparing" in asking.stdout.readline()
    with pytest.raises(LycheeServerError, match="another upgrade is under way"):
        list(ask_for_upgrade(state.own_marker(), UpgradeRequest()))
    asking.kill()
    asking.communicate(timeout=TIMEOUT_S)
    wait_for(lambda: read_state().first.pid != server.first.pid, "other Triton")
    wait_for(lambda: count_servers(server) == 1, "end of the old Triton")


def test_a_new_triton_that_ends_is_started_again(server: state.ServerState, exports: tuple[Path, Path, Path]) -> None:
    second = version_of(exports[1])
    assert run("upgrade", "--to", str(second)).returncode == 0
    os.kill(read_state().first.pid, signal.SIGKILL)
    wait_for(lambda: run("status").returncode == 0 and "restarts triton 1" in run("status").stdout, "restart")
    with LycheeClient(f"127.0.0.1:{server.first.grpc_port}") as client:
        assert client.manifest().version == second
    assert b"nv_inference_count" in fetch("127.0.0.1", server.first.metrics_port, "GET", "/metrics")


def test_a_restart_serves_the_export_that_was_served_wherever_it_lies_now(
    server: state.ServerState, repository: Path, exports: tuple[Path, Path, Path]
) -> None:
    first, second = map(version_of, exports[:2])
    nothing_served = subprocess.run(  # as an export into the same folder does, which knows of no server
        [LYCHEE, "rollback", "--repository", str(repository), "--to", str(second)],
        env={**os.environ, "LYCHEE_STATE_DIR": str(repository.parent / "nobody")},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert nothing_served.returncode == 0, nothing_served.stderr
    assert "No server is running" in nothing_served.stdout
    assert version_of(repository) == second
    os.kill(read_state().first.pid, signal.SIGKILL)
    wait_for(lambda: read_state().first.pid != server.first.pid and run("status").returncode == 0, "restart")
    with LycheeClient(f"127.0.0.1:{server.first.grpc_port}") as client:
        assert client.manifest().version == first
        assert client.check_golden_pairs().passed
    assert run("rollback", "--to", str(first)).returncode == 0


def test_nothing_is_left_of_a_supervisor_that_is_killed_in_the_middle(server: state.ServerState) -> None:
    assert server.supervisor is not None
    said = ask_for_upgrade(state.own_marker(), UpgradeRequest())
    while "loading export" not in next(said):
        pass
    os.kill(server.supervisor.pid, signal.SIGKILL)
    wait_for(lambda: not psutil.pid_exists(server.supervisor.pid), "end")  # type: ignore[union-attr]
    assert run("stop").returncode == 0
    wait_for(lambda: find_processes(server.marker) == [], "end of the others")
    assert not list(Path("/dev/shm").glob(f"{server.marker}*"))


def test_without_a_server_there_is_nothing_to_upgrade(repository: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "LYCHEE_STATE_DIR": str(tmp_path)}
    asked = subprocess.run([LYCHEE, "upgrade"], env=environment, capture_output=True, text=True, check=False)
    assert (asked.returncode, "no server is running" in asked.stderr) == (3, True)
    oldest = list_exports(repository)[-1].version
    named = ["rollback", "--repository", str(repository), "--to", "7"]
    asked = subprocess.run([LYCHEE, *named], env=environment, capture_output=True, text=True, check=False)
    assert (asked.returncode, f"{oldest}" in asked.stderr) == (2, True)
