"""`lychee tune` from the command line to a served variant, on a tiny cross-encoder with all its models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tritonclient.grpc as grpc
import typer
from checkpoints.exports import export_once
from google.protobuf import text_format
from lychee_client import LycheeClient
from lychee_loadtest.tune import study
from lychee_loadtest.tune.cli import register
from lychee_loadtest.tune.study import Effort
from lychee_server import TritonServer
from tritonclient.grpc import model_config_pb2
from typer.testing import CliRunner

pytestmark = pytest.mark.triton

FREE_PORTS = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
IN_A_HURRY = Effort(seconds=1.2, rounds=3, delays_us=(0, 2000))


@pytest.fixture
def exported_copy(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository of our own."""
    exported = export_once("qwen2_5_vl", tmp_path_factory=tmp_path_factory)
    return Path(shutil.copytree(exported, tmp_path / "repository"))


def test_a_measured_variant_serves_the_models_with_its_settings(
    exported_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "QUICK", IN_A_HURRY)
    app = typer.Typer()
    register(app)
    before = {path: path.read_bytes() for path in exported_copy.rglob("*") if path.is_file()}
    output = tmp_path / "curves"

    options = ["--repository", str(exported_copy), "--name", "mine", "--modality", "text", "--output", str(output)]
    result = CliRunner().invoke(app, ["--quick", *options])

    assert result.exit_code == 0, result.output
    assert "is enough" in result.stdout or "x the throughput of 1" in result.stdout
    written = exported_copy / "text_encoder" / "configs" / "mine.pbtxt"
    assert {path for path in exported_copy.rglob("*") if path.is_file()} - before.keys() == {written}
    assert all(path.read_bytes() == content for path, content in before.items())

    report = json.loads((output / "mine.json").read_text(encoding="utf-8"))
    (model,) = report["models"]
    assert report["format"] == 1
    assert report["machine"]["cores"] >= 1
    assert [point["rows"] for point in model["curves"][0]["batches"]] == [1, 2, 4, 8]
    assert all(point["rows_per_s"] > 0 and point["memory_bytes"] > 0 for point in model["curves"][0]["batches"])
    assert (output / "mine.png").read_bytes().startswith(b"\x89PNG")

    chosen = text_format.Parse(written.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
    with TritonServer(exported_copy, config_name="mine", **FREE_PORTS, log_path=tmp_path / "triton.log") as server:
        with grpc.InferenceServerClient(server.grpc_url) as triton:
            served = triton.get_model_config("text_encoder").config
        if any(reason.startswith("kept as in config.pbtxt") for reason in model["reasons"]):  # no gain was found
            chosen.dynamic_batching.preferred_batch_size.append(chosen.max_batch_size)  # as Triton reads none
        else:
            assert list(chosen.dynamic_batching.preferred_batch_size) == [model["curves"][0]["chosen_batch"]]
        assert served.dynamic_batching == chosen.dynamic_batching
        assert served.parameters["max_run_elements"] == chosen.parameters["max_run_elements"]
        with LycheeClient(server.grpc_url) as client:
            assert client.check_golden_pairs().passed
