"""Each test breaks one property of a small dual encoder and expects the validation to name it."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from lychee_export.errors import ValidationError
from lychee_export.families import Checkpoint, Piece
from lychee_export.onnx_export import export_onnx
from lychee_export.runtime import open_session
from lychee_export.signature import Axis, ModelSignature, Tensors, TensorSpec
from lychee_export.validation import Parity, Tolerance, validate_contract, validate_values
from torch import Tensor, nn

TOLERANCE = Tolerance(atol=1e-5, rtol=1e-5, score_atol=1e-4)
LOOSE = Tolerance(atol=10.0, rtol=0.0, score_atol=0.1)
IDS = TensorSpec("input_ids", "int64", (Axis("sequence_length", 64),))
MASK = TensorSpec("attention_mask", "int64", (Axis("sequence_length", 64),))
SCORE = TensorSpec("relevance_score", "float32", (1,))
ENCODER = ModelSignature("encoder", (IDS, MASK), (SCORE,), 8)
ENSEMBLE = ModelSignature("rerank", (IDS, MASK), (SCORE,), 8, steps=(ENCODER,))


class Encoder(nn.Module):
    """Score a row by the mean of its unmasked ids, with one property broken on demand."""

    def __init__(self, fault: Callable[[Tensor, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.fault = fault

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        total = (input_ids * attention_mask).sum(1, keepdim=True).float()
        score = torch.sigmoid(total / attention_mask.sum(1, keepdim=True) / 10 - 3)
        return self.fault(score, attention_mask) if self.fault else score


def rows(rng: np.random.Generator, count: int) -> Tensors:
    ids = rng.integers(1, 60, (count, 16))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def validate(fault: Callable[[Tensor, Tensor], Tensor] | None, tolerance: Tolerance = TOLERANCE) -> Parity:
    piece = Piece(ENCODER, Encoder().eval(), rows)
    checkpoint = Checkpoint(
        model_id="toy",
        revision="0",
        family="toy",
        pipeline="dual_encoder",
        pieces=(piece,),
        ensembles=(ENSEMBLE,),
        ensemble_rows={"rerank": rows(np.random.default_rng(5), 7)},
        buckets=(16, 32),
        preprocessing={},
        tokenizer_json="{}",
        golden_pairs=(),
    )
    exported = export_onnx(replace(piece, module=Encoder(fault).eval()))
    return validate_values(checkpoint, {"encoder": open_session(exported, "cpu")}, tolerance)


def test_faithful_export_passes_and_is_measured() -> None:
    parity = validate(None)
    assert parity.kendall_tau == 1.0
    assert parity.max_abs_error < 1e-6
    assert parity.batch_invariance < 1e-6


def test_wrong_value_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"batch of 1: differs from the reference by up to 0\.0"):
        validate(lambda score, _: score * 0.99)


def test_value_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValidationError, match="not finite"):
        validate(lambda score, _: score / (score - score))


def test_wrong_shape_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"shape \(1, 2\)"):
        validate(lambda score, _: torch.cat([score, score], 1))


def test_changed_ranking_order_is_refused() -> None:
    with pytest.raises(ValidationError, match="ranking order differs"):
        validate(lambda score, _: score + 0.09 * torch.sign(torch.sin(25 * score)), LOOSE)


def test_score_that_depends_on_its_batch_is_refused() -> None:
    with pytest.raises(ValidationError, match="alone instead of in a batch of 7"):
        validate(lambda score, _: score + 1e-3 * score.mean(0, keepdim=True), LOOSE)


def test_score_that_depends_on_padding_is_refused() -> None:
    with pytest.raises(ValidationError, match="padded to the next bucket"):
        validate(lambda score, mask: score + 1e-3 * mask.shape[1] / 16, LOOSE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: replace(s, inputs=(replace(IDS, name="ids"), MASK)), "inputs are"),
        (lambda s: replace(s, inputs=(MASK, IDS)), "inputs are"),
        (lambda s: replace(s, inputs=(replace(IDS, dtype="float32"), MASK)), "inputs are"),
        (lambda s: replace(s, outputs=(replace(SCORE, shape=(2,)),)), "outputs are"),
        (lambda s: replace(s, max_batch_size=0), "inputs are"),
    ],
)
def test_contract_breach_is_named(change: Callable[[ModelSignature], ModelSignature], message: str) -> None:
    model = export_onnx(Piece(ENCODER, Encoder().eval(), rows))
    validate_contract(model, ENCODER)
    with pytest.raises(ValidationError, match=message):
        validate_contract(model, change(ENCODER))


def test_export_says_nothing_about_the_machine() -> None:
    model = export_onnx(Piece(ENCODER, Encoder().eval(), rows))
    assert isinstance(model, onnx.ModelProto)
    assert b"/" + b"site-packages" not in model.SerializeToString()
    assert __file__.encode() not in model.SerializeToString()
