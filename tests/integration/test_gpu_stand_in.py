"""The whole way to a GPU but the GPU: a real Triton, its stubs, the client; ONNX Runtime only says that it has CUDA."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from fakes.cuda_provider import make_environment

pytestmark = pytest.mark.triton

ENCODERS = ("text_encoder", "vision_encoder")
SERVE = """
import json
import sys
from lychee_client import LycheeClient
from lychee_server import TritonServer
from lychee_server.status import read_models

repository, device, log_path = sys.argv[1:]
ports = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
with TritonServer(repository, device=device, **ports, log_path=log_path) as server:
    models = read_models(server.host, server.http_port, server.metrics_port, server.key)
    with LycheeClient(server.grpc_url) as client:
        golden, told = client.check_golden_pairs(), client.manifest().execution
print(json.dumps({
    "running": {model.name: [model.provider, model.precision, model.precision_reason] for model in models},
    "told": {name: str(execution) for name, execution in told.items()},
    "error": golden.max_abs_error,
    "passed": golden.passed,
}))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of an environment whose ONNX Runtime says that it has CUDA."""
    folder = tmp_path_factory.mktemp("gpu")
    return make_environment(folder / "venv", folder / "sessions.jsonl")


def run(python: Path, repository: Path, device: str, folder: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Serve a repository; return what it said of itself, and the options of the sessions that Triton opened on CUDA."""
    record = python.parents[2] / "sessions.jsonl"
    record.unlink(missing_ok=True)
    own = {"LYCHEE_CACHE_DIR": str(folder / "cache"), "LYCHEE_STATE_DIR": str(folder / "state")}
    command = [str(python), "-c", SERVE, str(repository), device, str(folder / "triton.log")]
    ended = subprocess.run(command, env={**os.environ, **own}, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    lines = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
    opened = [json.loads(line) for line in lines]
    served = str(folder / "cache" / "served")
    return json.loads(ended.stdout.splitlines()[-1]), [each for each in opened if each["path"].startswith(served)]


@pytest.fixture
def exported(repository: Path, tmp_path: Path) -> Path:
    """Return the bundled model as `lychee export --target cuda` writes it."""
    folder = tmp_path / "models"
    folder.mkdir()
    for config in repository.glob("*/config.pbtxt"):
        model = config.parent
        if model.name not in ENCODERS:
            (folder / model.name).symlink_to(model)
            continue
        (folder / model.name).mkdir()
        for version in (path for path in model.iterdir() if path.name.isdigit()):
            (folder / model.name / version.name).symlink_to(version)
        text = (model / "configs" / "cpu.pbtxt").read_text(encoding="utf-8")
        (folder / model.name / "config.pbtxt").write_text(text.replace("KIND_CPU", "KIND_GPU"), encoding="utf-8")
    return folder


def test_what_was_exported_for_gpus_runs_on_one_and_everything_says_so(
    python: Path, exported: Path, tmp_path: Path
) -> None:
    found, sessions = run(python, exported, "auto", tmp_path)
    for name in ENCODERS:
        assert found["running"][name] == ["CUDAExecutionProvider", "fp32", "exported for GPUs"]
        assert found["told"][name] == "cuda fp32"
    assert found["running"]["scoring_heads"][0] == "CPUExecutionProvider"
    assert found["passed"], found["error"]
    assert sorted(Path(each["path"]).parents[1].name for each in sessions) == list(ENCODERS)
    assert {(each["device_id"], each["use_tf32"]) for each in sessions} == {("0", "0")}
    assert {each["arena_extend_strategy"] for each in sessions} == {"kSameAsRequested"}


def test_an_export_for_cpus_runs_on_a_gpu_that_was_asked_for(python: Path, repository: Path, tmp_path: Path) -> None:
    found, sessions = run(python, repository, "cuda", tmp_path)
    assert {found["running"][name][0] for name in ENCODERS} == {"CUDAExecutionProvider"}
    assert len(sessions) == len(ENCODERS)
    assert found["passed"], found["error"]


def test_no_gpu_is_touched_where_the_cpu_was_asked_for(python: Path, exported: Path, tmp_path: Path) -> None:
    found, sessions = run(python, exported, "cpu", tmp_path)
    assert {found["running"][name][0] for name in ENCODERS} == {"CPUExecutionProvider"}
    assert sessions == []
    assert found["passed"], found["error"]
