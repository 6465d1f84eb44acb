"""What the options of ``lychee export`` change: targets, fused attention, the dry run."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
import typer
from google.protobuf import text_format
from lychee_client.repository import newest_version, process_bytes
from lychee_export import dry_run, exporter
from lychee_export.checkpoint.reading import Reading
from lychee_export.cli import register
from lychee_export.contract.limits import PROFILES, Limits
from lychee_export.contract.signature import SCORE_OUTPUTS, Axis, ModelSignature, TensorSpec
from lychee_export.errors import CheckpointError, ValidationError
from lychee_export.exporter import export_checkpoint
from lychee_export.families import Checkpoint, Piece
from lychee_export.onnx.export import export_onnx
from lychee_export.onnx.fusion import fuse_attention
from lychee_export.onnx.quantization import Precision
from lychee_export.onnx.runtime import open_session
from lychee_export.repository.deployment import config_files
from lychee_export.repository.workspace import unfinished_exports
from lychee_export.serving_memory import activation_bytes, rows_per_run
from torch import Tensor, nn
from transformers import BertConfig, BertModel
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup
from typer.testing import CliRunner

Load = Callable[[Checkpoint], None]

GPU, CPU = ModelInstanceGroup.KIND_GPU, ModelInstanceGroup.KIND_CPU


def kinds(config: str) -> list[int]:
    return [group.kind for group in text_format.Parse(config, ModelConfig()).instance_group]


@pytest.mark.parametrize("target", ["cuda", "tensorrt"])
def test_gpu_runs_encoders_alone_and_a_variant_needs_none(toy: Checkpoint, target: str) -> None:
    encoder = toy.pieces[0].signature
    head = replace(encoder, name="head", encoder=False)
    configs = config_files((encoder, head), "fp32", target)  # type: ignore[arg-type]
    config, variants = configs["encoder"]
    assert kinds(config) == [GPU]
    assert kinds(variants["cpu"]) == [CPU]
    assert ("tensorrt" in variants) == (target == "tensorrt")
    assert kinds(configs["head"][0]) == [CPU]
    assert not configs["head"][1]


@pytest.mark.parametrize(("precision", "parameters"), [("fp32", [("use_tf32", "0")]), ("fp16", []), ("w8", [])])
def test_a_gpu_computes_float32_as_it_was_validated(
    toy: Checkpoint, precision: Precision, parameters: list[tuple[str, str]]
) -> None:
    """Without a word, ONNX Runtime rounds the factors of float32 products to the 10 bits of TF32."""
    encoder = toy.pieces[0].signature
    texts = config_files((encoder, replace(encoder, name="head", encoder=False)), precision, "cuda")
    config, others = texts["encoder"]
    found = {}
    for name, text in {"encoder": config, "cpu": others["cpu"], "head": texts["head"][0]}.items():
        accelerators = text_format.Parse(text, ModelConfig()).optimization.execution_accelerators
        found[name] = [pair for one in accelerators.gpu_execution_accelerator for pair in one.parameters.items()]
    assert found == {"encoder": parameters, "cpu": [], "head": []}


def test_gpu_configuration_bounds_the_memory_of_encoders_alone(tmp_path: Path, toy: Checkpoint, load: Load) -> None:
    load(toy)
    lines: list[str] = []
    export_checkpoint("toy", tmp_path, target="cuda", gpu_memory_gb=2.0, progress=lines.append)
    parameters = text_format.Parse((tmp_path / "encoder/config.pbtxt").read_text(), ModelConfig()).parameters
    assert 1.8e9 < int(parameters["gpu_mem_limit"].string_value) < 2e9
    assert parameters["arena_extend_strategy"].string_value == "1"  # by what is asked, not by doubling
    assert "gpu_mem_limit" not in (tmp_path / "encoder/configs/cpu.pbtxt").read_text()
    assert any("GPU memory: encoder takes 0.0 GB of weights" in line for line in lines)
    head = replace(toy.pieces[0].signature, name="head", encoder=False)
    assert "gpu_mem_limit" not in config_files((head,), "fp16", "cuda", gpu_shares={"head": 5})["head"][0]


def test_encoder_that_is_not_for_the_accelerator_runs_on_the_plain_cpu(
    tmp_path: Path, toy: Checkpoint, load: Load
) -> None:
    (piece,) = toy.pieces
    plain = replace(piece.signature, accelerated=False)
    assert "openvino" not in config_files((plain,), "fp32")["encoder"][0]
    ensembles = tuple(replace(ensemble, steps=(plain,)) for ensemble in toy.card.ensembles)
    load(replace(toy, card=replace(toy.card, ensembles=ensembles), pieces=(replace(piece, signature=plain),)))
    export_checkpoint("toy", tmp_path)
    assert "execution" not in (tmp_path / "encoder/config.pbtxt").read_text()
    assert not list(newest_version(tmp_path / "client_assets").glob("*.npz"))


def test_script_and_variants_of_another_target_go(tmp_path: Path, toy: Checkpoint, load: Load) -> None:
    load(toy)
    for target, scripts in (("tensorrt", ["build-tensorrt.sh"]), ("cpu", [])):
        export_checkpoint("toy", tmp_path, target=target)  # type: ignore[arg-type]
        assert [path.name for path in tmp_path.glob("*.sh")] == scripts
        variants = {path.stem for path in (tmp_path / "encoder/configs").iterdir()}
        assert ("tensorrt" in variants) == bool(scripts)
        assert "cpu" in variants


def test_plan_that_was_built_from_an_unchanged_model_stays(tmp_path: Path, toy: Checkpoint, load: Load) -> None:
    load(toy)
    export_checkpoint("toy", tmp_path)
    (newest_version(tmp_path / "encoder") / "model.plan").write_bytes(b"built")
    export_checkpoint("toy", tmp_path)
    assert (newest_version(tmp_path / "encoder") / "model.plan").read_bytes() == b"built"


def test_fewer_bits_are_refused_for_tensorrt(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="w4"):
        export_checkpoint("lychee-mini", tmp_path, "w4", target="tensorrt")


class Attentive(nn.Module):
    """Score a row by a transformer's first state."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        config = BertConfig(
            vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
        )
        config._attn_implementation = "eager"
        self.bert = BertModel(config, add_pooling_layer=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        logits = hidden[:, 0, :4].float().sum(-1, keepdim=True)
        return torch.sigmoid(logits), logits


@pytest.fixture
def attentive(toy: Checkpoint) -> Checkpoint:
    """Return a checkpoint whose encoder has attention."""
    (piece,) = toy.pieces
    return replace(toy, pieces=(replace(piece, module=Attentive().eval()),))


def test_fused_attention_is_validated_and_recorded(tmp_path: Path, attentive: Checkpoint, load: Load) -> None:
    load(attentive)
    lines: list[str] = []
    report = export_checkpoint("toy", tmp_path, progress=lines.append, flash_attn=True)
    assert "fused 2 attention layers of encoder" in lines
    assert report.manifest.flash_attn is True
    assert report.manifest.created_by["onnxruntime-openvino"]
    assert report.parity.max_logit_error < 1e-5
    operators = {
        (node.domain, node.op_type)
        for node in onnx.load(newest_version(tmp_path / "encoder") / "model.onnx").graph.node
    }
    assert operators & {("com.microsoft", "Attention"), ("com.microsoft", "MultiHeadAttention")}
    assert "execution" not in (tmp_path / "encoder/config.pbtxt").read_text()


def test_fused_attention_with_weights_in_a_file_of_their_own(tmp_path: Path, attentive: Checkpoint) -> None:
    (piece,) = attentive.pieces
    path = tmp_path / "model.onnx"
    export_onnx(piece, path, external_data_bytes=1000)
    inputs = piece.sample_inputs(np.random.default_rng(0), 5)
    before = open_session(path).run(["logits"], inputs)[0]
    assert fuse_attention(path, "encoder") == 2
    assert {file.name for file in tmp_path.iterdir()} <= {"model.onnx", "model.onnx.data"}
    np.testing.assert_allclose(open_session(path).run(["logits"], inputs)[0], before, atol=1e-5)


def test_wrongly_fused_attention_fails_the_export(
    tmp_path: Path, attentive: Checkpoint, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ONNX Runtime that computes the first row alone rightly is caught by batches of several rows."""
    load(attentive)
    real_run = exporter.validate_values.__globals__["run_model"]

    def run(session: object, signature: ModelSignature, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs: dict[str, np.ndarray] = real_run(session, signature, tensors)
        outputs["logits"] = outputs["logits"] + 0.1 * (np.arange(len(outputs["logits"])) > 0)[:, None]
        return outputs

    monkeypatch.setitem(exporter.validate_values.__globals__, "run_model", run)
    with pytest.raises(ValidationError, match=r"encoder: logits, batch of 3: differs"):
        export_checkpoint("toy", tmp_path / "models", flash_attn=True)
    assert unfinished_exports(tmp_path / "models")


def test_nothing_to_fuse_is_reported(tmp_path: Path, toy: Checkpoint, load: Load) -> None:
    load(toy)
    with pytest.raises(ValidationError, match="encoder: no attention layer could be fused"):
        export_checkpoint("toy", tmp_path / "models", flash_attn=True)


def test_the_default_profile_takes_nothing_from_the_checkpoint() -> None:
    assert PROFILES["default"] == Limits()
    assert PROFILES["default"].max_tokens is PROFILES["full"].max_img_size is None  # what the checkpoint reads
    small, medium = PROFILES["small"], PROFILES["medium"]
    assert (small.max_tokens, small.max_img_size) == (512, 256)
    assert (medium.max_tokens, medium.max_img_size) == (2048, 512)
    with pytest.raises(ValueError, match="max_img_size is 12, expected at least 56"):
        Limits(max_img_size=12)


@pytest.fixture
def app() -> typer.Typer:
    """Return an application with the command and another one, so that its name must be given."""
    application = typer.Typer()
    register(application)
    application.command("other")(lambda: None)
    return application


def test_command_hands_its_options_on(app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, dict[str, object]]] = []

    def export(*arguments: object, **options: object) -> None:
        calls.append(({str(argument) for argument in arguments[:3]}, options))
        raise CheckpointError("stop")

    monkeypatch.setattr(exporter, "export_checkpoint", export)
    options = "--precision fp16 --target cuda --profile small --max-img-size 300 --max-tokens 700 --revision v1"
    options += " --flash-attn --instruction Judge. --base bases/qwen --template monoqwen2_vl"
    options += " --calibration-data photos --gpu-memory 40 --max-images 5 --resume --keep 7"
    result = CliRunner().invoke(app, ["export", "owner/name", "--repository", str(tmp_path), *options.split()])
    assert result.exit_code == 1
    assert [(arguments, options | {"replace": None}) for arguments, options in calls] == [
        (
            {"owner/name", str(tmp_path), "fp16"},
            {
                "limits": replace(PROFILES["small"], max_img_size=300, max_tokens=700, max_images=5),
                "reading": Reading("v1", "bases/qwen", "monoqwen2_vl", "Judge."),
                "target": "cuda",
                "flash_attn": True,
                "range_data": Path("photos"),
                "gpu_memory_gb": 40.0,
                "resume": True,
                "keep": 7,
                "replace": None,
            },
        )
    ]


@pytest.mark.parametrize(
    "option", ["--target tpu", "--profile huge", "--max-img-size 5", "--max-tokens 5", "--max-images 0"]
)
def test_command_refuses_unknown_choices(app: typer.Typer, option: str) -> None:
    result = CliRunner().invoke(app, ["export", "lychee-mini", *option.split()])
    assert result.exit_code == 2


def test_dry_run_prints_sizes_and_writes_nothing(app: typer.Typer, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["export", "lychee-mini", "--dry-run", "--repository", str(tmp_path / "models")])
    assert result.exit_code == 0, result.output
    assert "text_encoder/model.onnx" in result.stdout
    assert "rerank_image_text" in result.stdout
    assert "MB of memory to serve" in result.stdout
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("precision", "bytes_per_weight"),
    [("fp32", 4.0), ("fp16", 2.0), ("bf16", 2.0), ("w8", 1.125), ("w4", 0.625), ("s8", 1.0)],
)
def test_dry_run_counts_the_bytes_of_a_matrix(
    toy: Checkpoint, monkeypatch: pytest.MonkeyPatch, precision: str, bytes_per_weight: float
) -> None:
    (piece,) = toy.pieces
    with torch.device("meta"):
        module = nn.Linear(1 << 14, 1 << 14, bias=False)
    monkeypatch.setattr(
        dry_run, "load_checkpoint", lambda *_, **__: replace(toy, pieces=(replace(piece, module=module),))
    )
    monkeypatch.setattr(dry_run, "activation_bytes", lambda _: 1000)
    monkeypatch.setattr(dry_run, "find_checkpoint", lambda *_: SimpleNamespace(reading=Reading()))
    monkeypatch.setattr(dry_run, "export_bytes", lambda *_: 2_000_000)
    report = dry_run.plan_export("toy", precision)  # type: ignore[arg-type]
    mapped = f"{(2 if precision in {'fp16', 'bf16'} else 4) * (1 << 28) / 1e6:,.0f} MB"
    assert f"the export takes about 2 MB of memory, and reads mapped files of up to {mapped}" in "".join(report.lines())
    (planned,) = report.pieces
    assert planned.size.parameters == 1 << 28
    assert planned.size.served_bytes == int(bytes_per_weight * (1 << 28))
    assert planned.size.files == ("model.onnx", "model.onnx.data")
    assert planned.memory_bytes == process_bytes(planned.size.served_bytes) + 1000 > 2 * planned.size.served_bytes


def test_dry_run_tells_what_would_be_downloaded(toy: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_run, "load_checkpoint", lambda *_, **__: toy)
    monkeypatch.setattr(
        dry_run, "find_checkpoint", lambda *_: SimpleNamespace(held_bytes=lambda *_, **__: 0, reading=Reading())
    )
    monkeypatch.setattr(dry_run, "weight_bytes", lambda model_id, _: 7_000_000 if "/" in model_id else None)
    assert "to download if it is not in the cache: 7.0 MB" in list(dry_run.plan_export("owner/name").lines())
    assert not any("download" in line for line in dry_run.plan_export("toy").lines())


def test_activations_are_counted_at_the_largest_run() -> None:
    class Doubling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.constant = torch.ones(1)  # neither a weight nor on the meta device

        def forward(self, pixel_values: Tensor) -> Tensor:
            if bool((pixel_values > 3).all()):
                return pixel_values.float()
            x = pixel_values.float() * self.constant  # float32: 4 bytes for each element
            y = x + 1
            del x
            return y * 2

    spec = TensorSpec("pixel_values", "uint8", (Axis("num_patches", (4, 100)), 10))
    signature = ModelSignature("vision", (spec,), SCORE_OUTPUTS[:1], 16, encoder=True, max_run_elements=3500)
    assert rows_per_run(signature) == 3
    assert rows_per_run(replace(signature, max_run_elements=None)) == 16
    elements = 3 * math.prod((100, 10))
    peak = activation_bytes(Piece(signature, Doubling(), lambda rng, rows: {}))
    assert 2 * 4 * elements <= peak <= 3 * 4 * elements
