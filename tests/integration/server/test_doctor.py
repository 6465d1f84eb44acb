"""`lychee doctor` beside a real Triton, and the configuration lint against Triton's own verdict."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from lychee_server import ServerStartError, TritonServer, served_export, state
from lychee_server.doctor.config_lint import lint_repository
from lychee_server.supervision import stop_everything
from onnx import TensorProto, helper

pytestmark = pytest.mark.triton
LYCHEE = str(Path(sys.executable).parent / "lychee")
FREE_PORTS = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
WAIT_S = 30.0

INPUT = 'input { name: "x" data_type: TYPE_FP32 dims: 1 }'
OUTPUT = 'output { name: "y" data_type: TYPE_FP32 dims: 1 }'
MODEL = f'backend: "onnxruntime"\nmax_batch_size: 4\n{INPUT} {OUTPUT} instance_group {{ kind: KIND_CPU }}\n'
MODELS = {
    "sound": MODEL,
    "unknown_key": MODEL + "max_batchsize: 4",
    "bad_enum": MODEL.replace("TYPE_FP32", "TYPE_FLOAT32"),
    "two_schedulers": MODEL + "dynamic_batching { } sequence_batching { }",
    "queue_policy": MODEL + "dynamic_batching { default_queue_policy { max_queue_size: 9 } }",
    "unread_parameter": MODEL + 'parameters { key: "threads" value { string_value: "1" } }',
    "name": MODEL + 'name: "another"',
    "no_number": MODEL + 'parameters { key: "execution_mode" value { string_value: "fast" } }',
}


@pytest.fixture(autouse=True)
def _stop_whatever_is_left(own_state: None) -> Iterator[None]:
    yield
    stop_everything(state.read_state())


@pytest.fixture
def exported(repository: Path, tmp_path: Path) -> Path:
    """Return the exported repository with a manifest that may be changed."""
    folder = tmp_path / "exported"
    folder.mkdir()
    for model in repository.glob("*/config.pbtxt"):
        if model.parent.name == "client_assets":
            shutil.copytree(model.parent, folder / model.parent.name)
        else:
            (folder / model.parent.name).symlink_to(model.parent)
    return folder


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([LYCHEE, *arguments], capture_output=True, text=True, timeout=120, check=False)


def diagnose(*arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Run the doctor; return its exit code and the results by name, the last of each.

    Memory that other servers of this machine left behind is not this test's matter.
    """
    finished = run("doctor", "--json", *arguments)
    results = {result["name"]: result for result in json.loads(finished.stdout)["checks"]}
    results.pop("shared memory", None)
    return finished.returncode, results


def test_the_doctor_follows_a_server_through_its_life(exported: Path) -> None:
    assert run("load", "--repository", str(exported), *FREE_PORTS, "--no-gateway").returncode == 0
    known = state.read_state()
    assert known is not None
    grpc = f"127.0.0.1:{known.first.grpc_port}"

    code, healthy = diagnose("--url", grpc)
    assert {name: result for name, result in healthy.items() if result["verdict"] != "ok"} == {}
    assert code == 0
    assert {f"port {port}" for port in (known.first.http_port, known.first.grpc_port, known.first.metrics_port)} <= set(
        healthy
    )
    assert "lychee-mini" in healthy["manifest"]["seen"]
    assert str(exported) in healthy["config"]["seen"]
    wrong_port = diagnose("--url", f"127.0.0.1:{known.first.http_port}")[1]["server"]
    assert "Triton's HTTP port" in wrong_port["seen"]

    (path,) = exported.glob("client_assets/*/manifest.json")
    manifest = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**manifest, "revision": "newer"}), encoding="utf-8")
    code, outdated = diagnose("--url", f"http://127.0.0.1:{known.first.http_port}")
    assert (code, outdated["repository"]["verdict"]) == (1, "failed")
    assert "still runs an older export" in outdated["repository"]["seen"]

    assert known.supervisor is not None
    for pid in (psutil.Process(known.supervisor.pid).ppid(), known.supervisor.pid):  # nobody is left to sweep up
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + WAIT_S
    while known.is_running():
        assert time.monotonic() < deadline, "it did not end in time"
        time.sleep(0.02)
    code, ended = diagnose("--url", grpc, "--repository", str(exported))
    assert (code, ended["server"]["verdict"], ended["state"]["verdict"]) == (1, "failed", "warning")
    assert "lychee load" in ended["server"]["advice"]
    assert ended["config"]["verdict"] == "ok"


def write_models(repository: Path) -> None:
    """Write MODELS, every model with y = x."""
    shape = ["batch_size", 1]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()
    for name, config in MODELS.items():
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(config, encoding="utf-8")
        (repository / name / "1" / "model.onnx").write_bytes(content)


def test_the_lint_names_what_triton_refuses_without_a_reason_or_takes_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "repository"
    write_models(repository)
    monkeypatch.setattr(
        served_export, "check_repository", lambda folder, variant: sorted(MODELS)
    )  # it would refuse the start
    server = TritonServer(repository, http_port=0, grpc_port=0, metrics_port=0, log_path=tmp_path / "triton.log")
    with pytest.raises(ServerStartError) as refused, server:
        pytest.fail("Triton loaded every model")
    reasons = refused.value.model_reasons
    unexplained = {name for name, reason in reasons.items() if "failed to read text proto" in reason}
    assert unexplained == {"unknown_key", "bad_enum", "two_schedulers"}
    assert "directory name must equal model name" in reasons["name"]
    assert "parameter execution_mode is 'fast'" in reasons["no_number"]
    _, problems = lint_repository(repository)
    found = {Path(problem.seen.split()[0].rstrip(":")).parent.name: problem.severity for problem in problems}
    silent = set(MODELS) - set(reasons) - {"sound"}
    assert found == dict.fromkeys(unexplained, "error") | dict.fromkeys(silent, "warning")
