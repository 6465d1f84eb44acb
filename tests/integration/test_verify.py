"""`lychee verify` against a real Triton, and a real Triton on a repository that is prepared for TensorRT."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lychee_client import LycheeClient
from lychee_export.families import Checkpoint
from lychee_export.repository.tensorrt import BUILD_SCRIPT, build_script
from lychee_server import TritonServer

pytestmark = pytest.mark.triton


def verify(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "lychee"), "verify", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def parse(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stdout + done.stderr
    content: dict[str, Any] = json.loads(done.stdout)
    assert content["passed"]
    return content


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_live_server_agrees_with_manifest_and_reference(server: TritonServer, protocol: str) -> None:
    url = server.grpc_url if protocol == "grpc" else f"http://{server.http_url}"
    content = parse(verify("--url", url, "--reference", "lychee-mini", "--json"))
    assert len(content["pairs"]) == 9
    for pair in content["pairs"]:
        assert pair["reference"] == pytest.approx(pair["manifest"], abs=1e-5)
        assert pair["measured"] == pytest.approx(pair["reference"], abs=1e-4)  # plain CPU provider, float32


def test_in_process_agrees_with_manifest_and_reference(repository: Path) -> None:
    content = parse(verify("--repository", str(repository), "--reference", "lychee-mini", "--json"))
    assert content["max_difference"] < 1e-4
    assert content["file_problems"] == []


@pytest.fixture
def prepared(repository: Path, checkpoint: Checkpoint, tmp_path: Path) -> Path:
    """Return the repository with the builder's script in its root, and a file named like an engine."""
    for path in repository.rglob("*"):
        target = tmp_path / "models" / path.relative_to(repository)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        elif not path.name.startswith("."):
            target.hardlink_to(path)
    signatures = [piece.signature for piece in checkpoint.pieces]
    (tmp_path / "models" / BUILD_SCRIPT).write_text(build_script(signatures, "fp32"))
    for folder in (tmp_path / "models" / "text_encoder").glob("[0-9]*"):
        (folder / "model.plan").write_bytes(b"an engine of another machine")
        (folder / "model.plan.key").write_text("key")
    return tmp_path / "models"


def test_script_and_engines_do_not_disturb_a_server_that_does_not_use_them(prepared: Path, tmp_path: Path) -> None:
    log_path = tmp_path / "triton.log"
    with (
        TritonServer(prepared, http_port=0, grpc_port=0, metrics_port=0, log_path=log_path) as server,
        LycheeClient(server.grpc_url) as client,
    ):
        assert client.check_golden_pairs().passed
    assert BUILD_SCRIPT not in log_path.read_text()
