"""Half floats, computed as a GPU computes them: what overflows is found, kept in float32, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from checkpoints.exports import LIMITS
from checkpoints.fixtures import checkpoint_folder
from lychee_client.repository import newest_version
from lychee_export.contract.signature import ModelSignature, TensorSpec
from lychee_export.errors import CheckpointError, ValidationError
from lychee_export.exporter import export_checkpoint
from lychee_export.families import Checkpoint, Piece, Reference, load_checkpoint
from lychee_export.onnx.bfloat16 import KERNELS
from lychee_export.onnx.export import export_onnx
from lychee_export.onnx.half import HalfModule, scaled_queries
from lychee_export.onnx.half_kernels import half_kernels
from lychee_export.onnx.runtime import open_session
from lychee_export.verification.expected import run_ensemble
from lychee_export.verification.half_floats import check_half_floats
from lychee_export.verification.validation import TOLERANCES
from onnx import TensorProto, shape_inference
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

__all__ = ["checkpoint_folder"]

SLOW_DIMS = {"text": (7, 15), "vision": (3, 7, 11, 15)}
"""Of each head of the tiny checkpoints, those that rotary positions hardly turn: a bias there moves all scores alike,
as in a trained model."""

Change = Callable[[str, Tensor], None]


def bias_keys(name: str, weight: Tensor) -> None:
    """Give keys of the language model a bias of 300, as trained Qwen models have, and queries one of 120."""
    if "visual" not in name and name.endswith(("k_proj.bias", "q_proj.bias")):
        weight.view(-1, 16)[:, SLOW_DIMS["text"]] = 300 if "k_proj" in name else 120


def bias_patches(name: str, weight: Tensor) -> None:
    """Give keys and queries of the vision tower a bias of 300."""
    if "blocks" in name and name.endswith("qkv.bias"):
        weight.view(3, -1, 16)[:2, :, SLOW_DIMS["vision"]] = 300


def enlarge_sums(name: str, weight: Tensor) -> None:
    """Let a layer write into the residual stream what half floats cannot hold."""
    if name.endswith("layers.0.mlp.down_proj.weight"):
        weight.mul_(1e5)


def enlarge_weights(name: str, weight: Tensor) -> None:
    """Let a weight itself be too large."""
    if name.endswith("layers.1.mlp.up_proj.weight"):
        weight[0, 0] = 7e4


KEPT = {
    ("qwen2_5_vl", bias_keys): ["layers.0.self_attn", "layers.1.self_attn"],
    ("qwen2_5_vl", enlarge_sums): ["layers.0.mlp.down_proj"],
    ("qwen2_5_vl", enlarge_weights): ["layers.1.mlp.up_proj", "layers.1.mlp.down_proj"],
    ("qwen3_vl", bias_patches): ["blocks.0.attn", "blocks.1.attn"],
    ("qwen3_vl", enlarge_sums): ["layers.0.mlp.down_proj"],
}


@pytest.fixture
def change(checkpoint_folder: Callable[[str], Path], tmp_path: Path) -> Callable[[str, Change], Path]:
    """Return a function that writes a checkpoint with other weights."""

    def write(name: str, change_weight: Change) -> Path:
        folder = tmp_path / "checkpoint"
        folder.mkdir()
        for path in checkpoint_folder(name).iterdir():
            if path.suffix != ".safetensors":
                (folder / path.name).write_bytes(path.read_bytes())
                continue
            weights = load_file(path)
            for key, weight in weights.items():
                change_weight(key, weight)
            save_file(weights, folder / path.name, {"format": "pt"})
        return folder

    return write


@contextmanager
def halved(checkpoint: Checkpoint, kept: dict[str, list[str]]) -> Iterator[None]:
    """Round what is not kept to float16; torch's own kernels for it run on CPUs."""
    modules = [(piece.signature.name, piece.module) for piece in checkpoint.pieces if piece.signature.encoder]
    halves = [HalfModule(module, torch.float16, kept.get(name, ())) for name, module in modules]
    try:
        with scaled_queries(modules[0][1]), scaled_queries(modules[1][1]):
            yield
    finally:
        for half in halves:
            half.restore()


def score(checkpoint: Checkpoint, reference: Reference) -> np.ndarray:
    """Score the reference's rows with images."""
    (ensemble,) = (one for one in checkpoint.card.ensembles if one.name == "rerank_image")
    pieces = {piece.signature.name: piece for piece in checkpoint.pieces}
    return run_ensemble(pieces, ensemble, reference.ensemble_rows[ensemble.name]).outputs["relevance_score"]


@pytest.mark.parametrize(("name", "change_weight"), KEPT, ids=lambda value: getattr(value, "__name__", value))
def test_what_overflows_stays_in_float32_by_name(
    change: Callable[[str, Change], Path], name: str, change_weight: Change
) -> None:
    checkpoint = load_checkpoint(str(change(name, change_weight)), LIMITS)
    reference = checkpoint.make_reference()
    exact = score(checkpoint, reference)
    with halved(checkpoint, {}):
        assert not np.abs(score(checkpoint, reference) - exact).max() <= TOLERANCES["fp16"].score_atol
    lines: list[str] = []
    found = check_half_floats(checkpoint, reference, "fp16", lines.append)
    assert found is not None
    kept = {model: list(parts) for model, parts in found.kept.items()}
    (model,) = (model for model, parts in kept.items() if parts)
    assert kept[model] == KEPT[name, change_weight]
    assert any(KEPT[name, change_weight][0] in line for line in lines)
    assert found.score_error <= TOLERANCES["fp16"].score_atol
    with halved(checkpoint, kept):
        halves = score(checkpoint, reference)
    assert np.abs(halves - exact).max() <= TOLERANCES["fp16"].score_atol
    np.testing.assert_array_equal(score(checkpoint, reference), exact)  # every weight is what it was


def test_half_kernels_round_what_they_say(checkpoint_folder: Callable[[str], Path]) -> None:
    """The check computes products in float32 and rounds them, which is much faster: torch's own kernels agree."""
    checkpoint = load_checkpoint(str(checkpoint_folder("qwen2_5_vl")), LIMITS)
    reference = checkpoint.make_reference()
    exact = score(checkpoint, reference)
    with halved(checkpoint, {}):
        own = np.abs(score(checkpoint, reference) - exact).max()
    with ExitStack() as stack:
        for piece in checkpoint.pieces[:2]:
            stack.enter_context(half_kernels(piece.signature.name, piece.module, torch.float16, {}))
        emulated = np.abs(score(checkpoint, reference) - exact).max()
    assert 0.5 < emulated / own < 2


def test_a_model_that_nothing_helps_is_refused(checkpoint_folder: Callable[[str], Path]) -> None:
    checkpoint = load_checkpoint(str(checkpoint_folder("qwen2_5_vl")), LIMITS)
    with torch.no_grad():
        checkpoint.pieces[0].module.patch_weight.mul_(1e6)
    reference = checkpoint.make_reference()
    with pytest.raises(ValidationError, match=r"vision_encoder: .*reaches .*half float holds .*65504.*bf16 or fp32"):
        check_half_floats(checkpoint, reference, "fp16")


def test_scores_that_half_floats_spoil_are_refused(change: Callable[[str, Change], Path]) -> None:
    def bias_all_keys(name: str, weight: Tensor) -> None:
        """Biases that rotary positions do turn: every rounding of a query moves the scores."""
        if name.endswith("k_proj.bias"):
            weight.fill_(300)

    checkpoint = load_checkpoint(str(change("qwen2_5_vl", bias_all_keys)), LIMITS)
    with pytest.raises(ValidationError, match=r"computed in half floats, (relevance_score|logits) differs.*fp32"):
        check_half_floats(checkpoint, checkpoint.make_reference(), "fp16")


@pytest.mark.slow
def test_an_export_says_what_it_keeps_and_serves_it(change: Callable[[str, Change], Path], tmp_path: Path) -> None:
    lines: list[str] = []
    repository = tmp_path / "models"
    folder = change("qwen2_5_vl", bias_keys)
    report = export_checkpoint(str(folder), repository, "fp16", lines.append, limits=LIMITS, target="cuda")
    record = json.loads((repository / "validation.json").read_text())
    assert list(record["float32_parts"]["text_encoder"]) == ["layers.0.self_attn", "layers.1.self_attn"]
    assert any("text_encoder: in float32 stay layers.0.self_attn (attention scores" in line for line in lines)
    weights = onnx.load(newest_version(repository / "text_encoder") / "model.onnx").graph.initializer
    assert {TensorProto.FLOAT, TensorProto.FLOAT16} <= {weight.data_type for weight in weights}
    assert report.golden_error < TOLERANCES["fp16"].score_atol


@pytest.mark.slow
def test_bfloat16_is_exported_for_gpus_and_validated_without_one(
    checkpoint_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder, repository = str(checkpoint_folder("qwen3_vl")), tmp_path / "models"
    report = export_checkpoint(folder, repository, "bf16", limits=LIMITS, target="tensorrt")
    assert report.manifest.precision == "bf16"
    assert 0 < report.golden_error < TOLERANCES["bf16"].score_atol
    assert not (repository / "text_encoder/configs/cpu.pbtxt").exists()
    for name in ("vision_encoder", "text_encoder"):
        model = onnx.load(newest_version(repository / name) / "model.onnx")
        assert TensorProto.BFLOAT16 in {weight.data_type for weight in model.graph.initializer}
        assert operators_in_bfloat16(model) <= KERNELS
        wire = {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
        assert wire <= {TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8}


def test_bfloat16_is_refused_for_a_cpu(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"bf16 is for GPUs.* Choose fp32 for a CPU"):
        export_checkpoint("lychee-mini", tmp_path, "bf16")


def operators_in_bfloat16(model: onnx.ModelProto) -> set[str]:
    graph = shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    halves = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.BFLOAT16}
    halves |= {weight.name for weight in graph.initializer if weight.data_type == TensorProto.BFLOAT16}
    return {node.op_type for node in graph.node if halves & {*node.input, *node.output}}


@pytest.mark.parametrize("make", [lambda: nn.Conv2d(3, 4, 2), nn.Sigmoid, nn.GELU, lambda: nn.LayerNorm(8)])
def test_operators_without_kernels_for_bfloat16_compute_in_float32(
    tmp_path: Path, make: Callable[[], nn.Module]
) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.full((8,), 0.5))
            self.inner = make()

        def forward(self, pixels: Tensor) -> Tensor:
            return self.inner(pixels.to(self.factor.dtype) * self.factor).float().flatten(1).sum(1, keepdim=True)

    torch.manual_seed(0)
    module = Model().eval()
    HalfModule(module, torch.bfloat16)
    pixels = torch.randn(2, 3, 8, 8)
    specs = TensorSpec("pixels", "float32", (3, 8, 8)), TensorSpec("total", "float32", (1,))
    signature = ModelSignature("model", specs[:1], specs[1:], 8, encoder=True)
    export_onnx(Piece(signature, module, lambda *_: {"pixels": pixels.numpy()}), tmp_path / "model.onnx")
    assert operators_in_bfloat16(onnx.load(tmp_path / "model.onnx")) <= KERNELS
    (total,) = open_session(tmp_path / "model.onnx").run(None, {"pixels": pixels.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(total, module(pixels).numpy(), atol=0.1, rtol=0.02)


class _Product(nn.Module):
    """A matrix product in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(8))

    def forward(self, hidden: Tensor) -> Tensor:
        """Multiply, float32 to float32, (batch_size, 8)."""
        return (hidden.to(self.weight.dtype) @ self.weight).float()


def export_product(path: Path) -> onnx.ModelProto:
    """Write a file in bfloat16 and return what it holds."""
    hidden = TensorSpec("hidden", "float32", (8,))
    signature = ModelSignature("product", (hidden,), (TensorSpec("product", "float32", (8,)),), 8, encoder=True)
    module = _Product().eval()
    HalfModule(module, torch.bfloat16)
    export_onnx(Piece(signature, module, lambda _, rows: {"hidden": np.ones((rows, 8), np.float32)}), path)
    return onnx.load(path)


def test_a_file_in_bfloat16_is_computed_in_float32_on_a_cpu(tmp_path: Path) -> None:
    model = export_product(tmp_path / "model.onnx")
    weights = {weight.name: weight.data_type for weight in model.graph.initializer if list(weight.dims) == [8, 8]}
    assert list(weights.values()) == [TensorProto.BFLOAT16]
    hidden = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    (product,) = open_session(tmp_path / "model.onnx").run(None, {"hidden": hidden})
    np.testing.assert_allclose(product, hidden, atol=2e-7)


def test_a_broken_file_in_bfloat16_is_not_opened(tmp_path: Path) -> None:
    """It is read with its types before a CPU gets a wider copy: that copy would be sound."""
    model = export_product(tmp_path / "model.onnx")
    for node in model.graph.node:
        if node.op_type == "Cast" and node.attribute[0].i == TensorProto.BFLOAT16:
            node.attribute[0].i = TensorProto.FLOAT  # a product of float32 and bfloat16
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(Exception, match="Type"):
        open_session(tmp_path / "model.onnx")
