"""Signature = committed ``config.pbtxt`` = ONNX file = manifest."""

import hashlib
import json
from pathlib import Path

import pytest
from google.protobuf import text_format
from lychee_export.contract.signature import ModelSignature
from lychee_export.families import Checkpoint
from lychee_export.repository.assets import CLIENT_ASSETS
from lychee_export.repository.deployment import config_files
from lychee_export.verification.validation import validate_contract
from tritonclient.grpc.model_config_pb2 import TYPE_FP32, ModelConfig


def model_file(repository: Path, name: str, filename: str = "model.onnx") -> Path:
    (path,) = (repository / name).glob(f"*/{filename}")
    return path


def signatures(checkpoint: Checkpoint) -> list[ModelSignature]:
    card = checkpoint.card
    return [*(piece.signature for piece in checkpoint.pieces), *card.heads, *card.ensembles, CLIENT_ASSETS]


def manifest(repository: Path) -> dict[str, object]:
    (path,) = repository.glob("client_assets/*/manifest.json")
    content: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    return content


def test_committed_configs_equal_what_the_exporter_writes(root: Path, checkpoint: Checkpoint) -> None:
    expected = {}
    for name, (config, variants) in config_files(signatures(checkpoint), "fp32").items():
        expected[f"{name}/config.pbtxt"] = config
        expected |= {f"{name}/configs/{variant}.pbtxt": text for variant, text in variants.items()}
    repository = root / "model_repository"
    committed = {
        str(path.relative_to(repository)): path.read_text(encoding="utf-8") for path in repository.rglob("*.pbtxt")
    }
    assert committed == expected


def test_onnx_files_keep_the_signatures(repository: Path, checkpoint: Checkpoint) -> None:
    for signature in signatures(checkpoint):
        if not signature.steps:
            validate_contract(model_file(repository, signature.name), signature)


def test_ensemble_batch_size_fits_every_step(repository: Path) -> None:
    configs = {
        path.parent.name: text_format.Parse(path.read_text(), ModelConfig())
        for path in repository.glob("*/config.pbtxt")
    }
    ensembles = [config for config in configs.values() if config.platform == "ensemble"]
    assert len(ensembles) == 6
    for config in ensembles:
        for step in config.ensemble_scheduling.step:
            assert config.max_batch_size <= configs[step.model_name].max_batch_size


@pytest.mark.parametrize("modality", ["text", "image", "image_text"])
def test_head_and_ensemble_give_the_score_and_then_the_logits(repository: Path, modality: str) -> None:
    for name in (f"scoring_head_{modality}", f"rerank_{modality}"):
        config = text_format.Parse((repository / name / "config.pbtxt").read_text(), ModelConfig())
        assert [(tensor.name, tensor.data_type, list(tensor.dims)) for tensor in config.output] == [
            ("relevance_score", TYPE_FP32, [1]),
            ("logits", TYPE_FP32, [1]),
        ]


def test_configuration_that_servers_take_by_default_asks_for_no_accelerator(repository: Path) -> None:
    """A build of NVIDIA's backend that lacks it refuses the model."""
    paths = sorted(repository.glob("*/config.pbtxt"))
    assert len(paths) == 10
    for path in paths:
        config = text_format.Parse(path.read_text(), ModelConfig())
        assert not config.optimization.HasField("execution_accelerators"), path
        assert config.platform == "ensemble" or config.backend == "onnxruntime"


def test_manifest_hashes_the_files_beside_it(repository: Path) -> None:
    artifacts = manifest(repository)["artifacts"]
    assert isinstance(artifacts, dict)
    tokenizer = artifacts.pop("tokenizer")
    assert len(tokenizer) == 64
    measured = {
        key: hashlib.sha256(model_file(repository, *key.split("/")).read_bytes()).hexdigest() for key in artifacts
    }
    assert measured == artifacts
    assert len(artifacts) == 5


def test_manifest_carries_golden_pairs_and_the_bound_of_float32(repository: Path, checkpoint: Checkpoint) -> None:
    content = manifest(repository)
    golden = content["golden_pairs"]
    assert isinstance(golden, dict)
    assert [pair["relevance_score"] for pair in golden["pairs"]] == pytest.approx(
        [pair.relevance_score for pair in checkpoint.make_reference().golden_pairs], abs=1e-5
    )
    assert golden["tolerance"] == 1e-4


def test_what_the_machine_measured_stands_apart_from_the_manifest(repository: Path) -> None:
    record = json.loads((repository / "validation.json").read_text(encoding="utf-8"))
    assert record["max_abs_error"] < 2e-5
    assert record["max_logit_error"] < 4e-4
    assert record["golden_error"] < 1e-4
    assert record["kendall_tau"] == 1.0
    assert record["cpu"]
