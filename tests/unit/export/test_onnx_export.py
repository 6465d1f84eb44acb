"""The ONNX file has the signature's axes, whatever torch calls them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from lychee_export.contract.signature import SCORE_OUTPUTS, Axis, ModelSignature, Tensors, TensorSpec
from lychee_export.errors import ValidationError
from lychee_export.families import Checkpoint, Piece
from lychee_export.onnx.export import export_onnx
from lychee_export.onnx.model_file import read_graph
from lychee_export.onnx.runtime import open_session
from lychee_export.verification.expected import compute_expected, execution_order
from lychee_export.verification.validation import validate_contract
from torch import Tensor, nn

PATCHES = Axis("num_patches", (16, 32, 64), multiple=4)
TOKENS = Axis("num_image_tokens", (4, 8, 16))
VISION = ModelSignature(
    "vision_encoder",
    (TensorSpec("pixel_values", "uint8", (PATCHES, 6)), TensorSpec("image_grid_thw", "int64", (2, 3))),
    (TensorSpec("image_embeds", "float32", (TOKENS, 24)),),
    8,
    encoder=True,
)


class Merger(nn.Module):
    """Join four neighbouring patches into a token."""

    def forward(self, pixel_values: Tensor, image_grid_thw: Tensor) -> Tensor:
        """Return image_embeds, float32, (batch_size, num_patches / 4, 24)."""
        rows, patches, _ = pixel_values.shape
        scale = 1.0 + image_grid_thw.sum((1, 2)).float()
        return pixel_values.float().reshape(rows, patches // 4, 24) / scale[:, None, None]


def sample(rng: np.random.Generator, rows: int) -> Tensors:
    pixels = rng.integers(0, 256, (rows, 16, 6), dtype=np.uint8)
    return {"pixel_values": pixels, "image_grid_thw": rng.integers(0, 4, (rows, 2, 3))}


def shapes(path: Path) -> dict[str, list[str | int]]:
    graph = read_graph(path).graph
    return {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }


def test_axes_have_the_names_of_the_signature(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    export_onnx(Piece(VISION, Merger().eval(), sample), path)
    assert shapes(path) == {
        "pixel_values": ["batch_size", "num_patches", 6],
        "image_grid_thw": ["batch_size", 2, 3],
        "image_embeds": ["batch_size", "num_image_tokens", 24],
    }
    validate_contract(path, VISION)
    session = open_session(path)
    for rows, patches in ((1, 4), (5, 64)):
        inputs = {
            "pixel_values": np.ones((rows, patches, 6), np.uint8),
            "image_grid_thw": np.ones((rows, 2, 3), np.int64),
        }
        (embeds,) = session.run(["image_embeds"], inputs)
        assert embeds.shape == (rows, patches // 4, 24)
        np.testing.assert_allclose(embeds, 1 / 7)


def test_axis_that_the_module_fixes_breaches_the_contract(tmp_path: Path) -> None:
    class Fixed(Merger):
        def forward(self, pixel_values: Tensor, image_grid_thw: Tensor) -> Tensor:
            return super().forward(pixel_values, image_grid_thw).mean(1, keepdim=True)

    path = tmp_path / "model.onnx"
    export_onnx(Piece(VISION, Fixed().eval(), sample), path)
    with pytest.raises(ValidationError, match=r"outputs are .*image_embeds.*1, 24"):
        validate_contract(path, VISION)


def test_module_that_torch_cannot_export_is_reported(tmp_path: Path) -> None:
    class Branching(Merger):
        def forward(self, pixel_values: Tensor, image_grid_thw: Tensor) -> Tensor:
            if int(image_grid_thw.sum()) > 3:
                pixel_values = pixel_values + 1
            return super().forward(pixel_values, image_grid_thw)

    with pytest.raises(ValidationError, match="vision_encoder: torch cannot export the module"):
        export_onnx(Piece(VISION, Branching().eval(), sample), tmp_path / "model.onnx")


def test_axis_with_buckets_that_are_no_multiples_is_refused() -> None:
    with pytest.raises(ValueError, match="ascending multiples of 4"):
        Axis("num_patches", (16, 30), multiple=4)


def test_models_are_validated_after_those_whose_outputs_they_take() -> None:
    embeds, hidden = VISION.outputs, (TensorSpec("hidden", "float32", (8,)),)
    text = ModelSignature("text_encoder", embeds, hidden, 8, encoder=True)
    head = ModelSignature("scoring_head", hidden, SCORE_OUTPUTS, 8)
    with_text = ModelSignature("rerank_text", embeds, SCORE_OUTPUTS, 8, steps=(text, head))
    with_image = ModelSignature("rerank_image", VISION.inputs, SCORE_OUTPUTS, 8, steps=(VISION, text, head))
    order = execution_order((head, text, VISION), (with_text, with_image))
    assert [signature.name for signature in order] == ["vision_encoder", "text_encoder", "scoring_head"]


def test_expected_values_outlive_the_modules(weighted: Checkpoint) -> None:
    expected = compute_expected(weighted, weighted.make_reference())
    before = expected.samples["encoder"][0].outputs["logits"].copy()
    for weight in weighted.pieces[0].module.parameters():
        weight.data = torch.zeros_like(weight)
    assert (expected.samples["encoder"][0].outputs["logits"] == before).all()
    assert [sample.rows for sample in expected.samples["encoder"]] == [1, 3, 7]
