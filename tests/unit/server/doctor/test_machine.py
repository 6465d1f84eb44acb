"""The checks that `lychee doctor` makes of the server's machine."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import shutil
import socket
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from fakes.dual_encoder import manifest_json
from fakes.server_state import make_state, make_triton
from lychee_client.checks import MACHINE_CHECKS, CheckContext, CheckResult, CheckSkipped
from lychee_server import memory, state
from lychee_server.doctor import files as file_checks
from lychee_server.doctor import gateway as gateway_checks
from lychee_server.doctor import gpu as gpu_checks
from lychee_server.doctor import machine as checks
from lychee_server.execution import device
from lychee_server.processes import ProcessId

IDENTITY = {
    "model_id": "tiny",
    "revision": "1",
    "precision": "fp32",
    "artifacts": {"tokenizer": "0" * 64, "a/model.onnx": "0" * 64},
}
CONFIG = """backend: "onnxruntime"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: 4 }
output { name: "y" data_type: TYPE_FP32 dims: 2 }
"""


@pytest.fixture(autouse=True)
def own_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep this machine's shared memory, containers, GPUs and repository out of the tests; return the first."""
    shared_memory = tmp_path / "shm"
    shared_memory.mkdir()
    monkeypatch.setattr(checks.processes, "SHARED_MEMORY", shared_memory)
    monkeypatch.setattr(memory, "CGROUP", tmp_path / "no-cgroup")
    monkeypatch.setattr(gateway_checks, "find_listeners", dict)
    monkeypatch.chdir(tmp_path)
    return shared_memory


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository with one model and the manifest's folder."""
    folder = tmp_path / "models"
    for name, file in (("tiny", "model.onnx"), ("client_assets", "manifest.json")):
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "1" / file).write_text(manifest_json(**IDENTITY), encoding="utf-8")
    (folder / "tiny" / "config.pbtxt").write_text(CONFIG, encoding="utf-8")
    return folder


def make_context(repository: Path | None = None, *, live: bool = True, **served: Any) -> CheckContext:
    """Return the context of a server that says what it is in `served`; the rest as in IDENTITY."""
    identity = SimpleNamespace(**{**IDENTITY, **served})
    client = SimpleNamespace(
        manifest=lambda: SimpleNamespace(identity=identity),
        server_status=lambda: SimpleNamespace(live=live, models=(), gateway=False),
    )
    return CheckContext(client, "localhost:2", repository)


@pytest.fixture
def running(repository: Path) -> state.ServerState:
    """Let this process pass for a server on the ports 1 to 3."""
    own = psutil.Process()
    marker = "lychee_0123456789ab_"
    known = make_state(
        make_triton(
            pid=own.pid,
            start_ticks=ProcessId.of(own.pid).start_ticks,
            host="0.0.0.0",
            repository=str(repository),
            log_path="/log/triton.log",
        ),
        marker=marker,
    )
    state.write_state(known)
    return known


def changed(known: state.ServerState, **facts: Any) -> state.ServerState:
    """Return a server whose Triton is another one."""
    return dataclasses.replace(known, tritons=(dataclasses.replace(known.first, **facts),))


def only(results: Iterable[CheckResult]) -> CheckResult:
    (result,) = results
    return result


def test_the_client_knows_the_names_of_the_checks() -> None:
    assert tuple(checks.CHECKS) == MACHINE_CHECKS


def test_the_checks_are_installed_as_an_entry_point() -> None:
    (entry,) = [entry for entry in importlib.metadata.entry_points(group="lychee.checks") if entry.name == "machine"]
    assert entry.load() is checks.check_machine


def test_a_sound_machine_passes_and_a_missing_repository_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "find_listeners", dict)
    results = list(checks.check_machine(make_context(live=False)))
    assert {result.verdict for result in results} == {"ok", "skipped"}
    skipped = [result.name for result in results if result.verdict == "skipped"]
    assert skipped == ["repository", "disk", "memory", "config"]
    assert all("--repository" in result.seen for result in results if result.verdict == "skipped")


def test_the_repository_is_the_given_one_then_the_servers_then_the_one_here(
    tmp_path: Path, running: state.ServerState
) -> None:
    assert file_checks.find_repository(make_context(tmp_path / "given")) == tmp_path / "given"
    assert file_checks.find_repository(make_context()) == Path(running.first.repository)
    state.clear_state()
    with pytest.raises(CheckSkipped, match="no model repository"):
        file_checks.find_repository(make_context())
    (tmp_path / "model_repository").mkdir()
    assert file_checks.find_repository(make_context()) == Path("model_repository")


# The manifest beside the models, and the live one.


def test_equal_manifests_pass(repository: Path) -> None:
    result = only(file_checks.check_repository(make_context(repository)))
    assert (result.verdict, result.seen) == ("ok", f"the server runs what {repository} holds: tiny")


def test_a_server_of_this_repository_with_an_older_export_must_restart(
    repository: Path, running: state.ServerState
) -> None:
    context = make_context(
        repository,
        precision="w4",
        artifacts={"tokenizer": "0" * 64, "a/model.onnx": "1" * 64, "b/model.onnx": "2" * 64},
    )
    result = only(file_checks.check_repository(context))
    assert result.verdict == "failed"
    assert "still runs an older export" in result.seen
    assert "precision is w4 there and fp32 here; other content: a/model.onnx, b/model.onnx" in result.seen
    assert "`lychee stop`, then `lychee load`" in result.advice


def test_a_server_elsewhere_with_another_model_is_a_warning(repository: Path) -> None:
    result = only(file_checks.check_repository(make_context(repository, model_id="other")))
    assert (result.verdict, "model_id is other there and tiny here" in result.seen) == ("warning", True)


def test_the_newest_manifest_counts(repository: Path) -> None:
    newest = repository / "client_assets" / "10"
    shutil.copytree(repository / "client_assets" / "1", newest)
    (newest / "manifest.json").write_text(manifest_json(**{**IDENTITY, "revision": "2"}), encoding="utf-8")
    assert "revision is 1 there and 2 here" in only(file_checks.check_repository(make_context(repository))).seen


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"artifacts": 3}', "名"])
def test_a_damaged_manifest_fails(repository: Path, content: str) -> None:
    path = repository / "client_assets" / "1" / "manifest.json"
    path.write_text(content, encoding="utf-8")
    result = only(file_checks.check_repository(make_context(repository)))
    assert (result.verdict, f"{path} is no manifest" in result.seen) == ("failed", True)


def test_a_missing_manifest_fails(tmp_path: Path) -> None:
    result = only(file_checks.check_repository(make_context(tmp_path)))
    assert (result.verdict, "lychee export" in result.advice) == ("failed", True)


# Ports.


def test_free_ports_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "find_listeners", dict)
    results = list(checks.check_ports(make_context(live=False)))
    assert [(result.name, result.verdict) for result in results] == [
        ("port 8000", "ok"),
        ("port 8001", "ok"),
        ("port 8002", "ok"),
    ]


def test_ports_of_the_running_server_are_told(running: state.ServerState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "find_listeners", lambda: {1: (running.first.pid, "tritonserver"), 2: (77, "nginx")})
    http, grpc, metrics = checks.check_ports(make_context(live=False))
    assert (http.verdict, http.seen) == ("ok", f"http: our server, pid {running.first.pid}")
    assert (grpc.verdict, grpc.seen) == ("failed", "grpc: taken by nginx, pid 77")
    assert "--grpc-port" in grpc.advice
    assert (metrics.name, metrics.verdict) == ("port 3", "failed")
    assert f"nobody listens for metrics, though the server runs with pid {running.first.pid}" in metrics.seen
    assert "/log/triton.log" in metrics.advice


@pytest.mark.parametrize(
    ("listener", "live", "verdict", "seen"),
    [
        ((7, "tritonserver"), True, "ok", "did not start here, pid 7"),
        ((7, "tritonserver"), False, "failed", "taken by tritonserver, pid 7"),
        ((7, "python3"), True, "warning", "taken by python3, pid 7"),
        ((None, "another user's program"), False, "failed", "taken by another user's program"),
    ],
)
def test_a_foreign_listener_matters_most_without_a_server(
    monkeypatch: pytest.MonkeyPatch, listener: tuple[int | None, str], live: bool, verdict: str, seen: str
) -> None:
    monkeypatch.setattr(checks, "find_listeners", lambda: {8001: listener})
    result = list(checks.check_ports(make_context(live=live)))[1]
    assert (result.verdict, result.seen.endswith(seen)) == (verdict, True)


def test_listeners_are_found_with_pid_and_program() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = checks.find_listeners()[listener.getsockname()[1]]
    assert found == (os.getpid(), psutil.Process().name())


# The state file and what servers leave.


def test_no_state_passes() -> None:
    assert only(checks.check_state(make_context())).verdict == "ok"


def test_a_running_server_passes_and_another_url_is_a_warning(running: state.ServerState) -> None:
    result = only(checks.check_state(make_context()))
    assert (result.verdict, f"pid {running.first.pid}, up" in result.seen) == ("ok", True)
    state.write_state(changed(running, grpc_port=9, http_port=8))
    result = only(checks.check_state(make_context()))
    assert (result.verdict, result.advice) == ("warning", "check that one with --url 127.0.0.1:9")


def test_a_stale_state_is_a_warning(running: state.ServerState) -> None:
    state.write_state(changed(running, start_ticks=running.first.start_ticks - 60))
    result = only(checks.check_state(make_context()))
    assert (result.verdict, "ended without `lychee stop`" in result.seen) == ("warning", True)
    assert "`lychee stop`" in result.advice


def test_the_ports_of_a_server_that_ended_do_not_count(
    running: state.ServerState, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.write_state(changed(running, start_ticks=running.first.start_ticks - 60))
    monkeypatch.setattr(checks, "find_listeners", dict)
    names = [result.name for result in checks.check_ports(make_context())]
    assert names == ["port 8000", "port 8001", "port 8002"]


def test_a_damaged_state_file_fails(running: state.ServerState) -> None:
    state.state_path().write_text("{", encoding="utf-8")
    result = only(checks.check_state(make_context()))
    assert (result.verdict, result.seen) == ("failed", f"{state.state_path()} is damaged")


def test_shared_memory_of_servers_that_ended_is_a_warning(own_machine: Path) -> None:
    for name in ("lychee_0123456789ab_1", "lychee_0123456789ab_2", "lychee_notes", "other_0123456789ab_1"):
        (own_machine / name).write_bytes(b"\0" * 2**20)
    result = list(checks.check_state(make_context()))[1]
    assert (result.name, result.verdict) == ("shared memory", "warning")
    assert result.seen == "2 MiB belong to 1 servers that ended"
    assert result.advice == f"rm {own_machine}/lychee_0123456789ab_*"


# Permissions.


def test_private_folders_and_a_readable_repository_pass(repository: Path) -> None:
    assert only(file_checks.check_permissions(make_context(repository))).verdict == "ok"


def test_a_folder_that_cannot_be_written_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path / "cache")  # root may do everything
    result = only(file_checks.check_permissions(make_context()))
    assert (result.verdict, result.seen) == ("failed", f"{tmp_path / 'cache'}, for the cache, is not writable")
    assert "LYCHEE_CACHE_DIR" in result.advice


def test_a_state_file_that_everyone_can_write_fails(running: state.ServerState) -> None:
    state.state_path().chmod(0o666)
    (state.state_path().parent / "link").symlink_to("/tmp")
    result = only(file_checks.check_permissions(make_context()))
    assert (result.verdict, result.seen.startswith(f"{state.state_path()} can be written by everyone")) == (
        "failed",
        True,
    )
    assert result.advice.startswith("chmod -R o-w ")


def test_models_that_cannot_be_read_fail(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        (repository / "tiny" / str(number + 2)).mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: not Path(path).is_relative_to(repository / "tiny"))
    result = only(file_checks.check_permissions(make_context(repository)))
    assert result.verdict == "failed"
    assert result.seen.startswith(f"{repository / 'tiny'}, {repository / 'tiny' / '1'}, ")
    assert result.seen.endswith("and 6 more cannot be read")


# Disk and memory.


def test_free_disk_is_compared_with_what_is_still_to_compile(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (repository / "tiny" / "1" / "model.onnx").open("wb") as file:
        file.truncate(100 * checks.MIB)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100 * checks.MIB))
    cache, logs, shared = checks.check_disk(make_context(repository))
    assert [cache.verdict, logs.verdict, shared.verdict] == ["failed", "ok", "ok"]
    assert cache.seen == f"cache: 100 MiB free in {tmp_path / 'cache'}, 164 MiB needed"
    assert "LYCHEE_CACHE_DIR" in cache.advice
    (tmp_path / "cache" / "openvino").mkdir(parents=True)
    with (tmp_path / "cache" / "openvino" / "1.blob").open("wb") as file:
        file.truncate(101 * checks.MIB)
    assert next(iter(checks.check_disk(make_context(repository)))).verdict == "ok"


@pytest.mark.parametrize(("available_mib", "verdict"), [(319, "warning"), (320, "ok")])
def test_memory_is_compared_with_an_estimate(
    repository: Path, monkeypatch: pytest.MonkeyPatch, available_mib: int, verdict: str
) -> None:
    (repository / "tiny" / "1" / "model.onnx").write_bytes(b"")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=available_mib * checks.MIB))
    result = only(checks.check_memory(make_context(repository)))
    assert (result.verdict, result.seen) == (
        verdict,
        f"{available_mib} MiB available, about 320 MiB needed for 1 models",
    )


def test_memory_beside_a_running_server_needs_only_a_reserve(
    running: state.ServerState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=300 * checks.MIB))
    result = only(checks.check_memory(make_context()))
    assert (result.verdict, result.seen) == ("ok", "300 MiB available, 256 MiB should be; the server has 0 MiB")


@pytest.mark.parametrize(
    ("limit", "expected_mib"), [(str(100 * 2**20), 60), ("max", 300), (str(1000 * 2**20), 300), (str(2**20), 0)]
)
def test_the_limit_of_a_container_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, expected_mib: int
) -> None:
    folder = tmp_path / "cgroup"
    folder.mkdir()
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{50 * 2**20}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {10 * 2**20}\nactive_file 3\n")
    monkeypatch.setattr(memory, "CGROUP", folder)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=300 * checks.MIB))
    assert memory.available_memory_bytes() == expected_mib * checks.MIB


# Configuration.


def test_a_sound_configuration_passes(repository: Path) -> None:
    result = only(file_checks.check_config(make_context(repository)))
    assert (result.verdict, result.seen) == ("ok", f"1 files in {repository} are sound")


def test_each_problem_of_a_configuration_is_one_line(repository: Path) -> None:
    path = repository / "tiny" / "config.pbtxt"
    path.write_text(CONFIG + 'parameters { key: "threads" }\n', encoding="utf-8")
    (path.parent / "configs").mkdir()
    (path.parent / "configs" / "cpu.pbtxt").write_text(CONFIG + "batching: 1\n", encoding="utf-8")
    warning, error = file_checks.check_config(make_context(repository))
    assert (warning.verdict, error.verdict) == ("warning", "failed")
    assert warning.seen.startswith(f"{path}: parameters[threads]: ")
    assert "5:1 : " in error.seen


def test_a_folder_without_models_fails(tmp_path: Path) -> None:
    result = only(file_checks.check_config(make_context(tmp_path / "shm")))
    assert (result.verdict, "lychee export" in result.advice) == ("failed", True)


# A GPU.


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Let the machine's GPUs, its builds of ONNX Runtime and what is wrong with them be what a test says."""
    machine = SimpleNamespace(
        gpus=[], builds={"onnxruntime-openvino": "1.24.1"}, problem="this onnxruntime has no CUDA"
    )
    monkeypatch.setattr(device, "read_gpus", lambda: machine.gpus)
    monkeypatch.setattr(device, "installed_builds", lambda: machine.builds)
    monkeypatch.setattr(device, "find_gpu_problem", lambda: machine.problem)
    return machine


def export_for_gpus(repository: Path) -> None:
    config = CONFIG + "instance_group { kind: KIND_GPU }"
    (repository / "tiny" / "config.pbtxt").write_text(config, encoding="utf-8")


def test_a_machine_without_a_gpu_needs_none(repository: Path, gpu: SimpleNamespace) -> None:
    result = only(gpu_checks.check_gpu(make_context(repository)))
    assert (result.verdict, result.seen) == (
        "ok",
        "none is needed. NVIDIA GPUs seen: none; installed: onnxruntime-openvino 1.24.1",
    )


def test_a_gpu_that_the_models_ask_for_and_cannot_have_fails(repository: Path, gpu: SimpleNamespace) -> None:
    export_for_gpus(repository)
    result = only(gpu_checks.check_gpu(make_context(repository)))
    assert result.verdict == "failed"
    assert "not usable, and tiny of the repository ask for one: this onnxruntime has no CUDA" in result.seen
    assert "lychee-rerank-server[gpu]" in str(result.advice)
    assert "--device cpu" in str(result.advice)


def test_models_for_a_gpu_that_run_on_the_cpu_are_a_warning(gpu: SimpleNamespace, running: state.ServerState) -> None:
    export_for_gpus(Path(running.first.repository))
    assert only(gpu_checks.check_gpu(make_context())).verdict == "warning"


def test_a_gpu_that_lies_idle_is_a_warning_and_one_that_computes_is_named(
    repository: Path, gpu: SimpleNamespace
) -> None:
    gpu.gpus = ["NVIDIA A10"]
    result = only(gpu_checks.check_gpu(make_context(repository)))
    assert (result.verdict, "NVIDIA A10" in result.seen) == ("warning", True)
    gpu.problem = ""
    result = only(gpu_checks.check_gpu(make_context()))
    assert result.verdict == "ok"
    assert "computes on it. NVIDIA GPUs seen: NVIDIA A10" in result.seen
