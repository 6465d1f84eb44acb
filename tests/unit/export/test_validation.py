"""Each test breaks one property of a toy encoder and expects the validation to name it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lychee_export.contract.signature import ModelSignature
from lychee_export.errors import ValidationError
from lychee_export.families import Checkpoint, Piece
from lychee_export.onnx.export import export_onnx
from lychee_export.onnx.runtime import open_session
from lychee_export.verification.expected import compute_expected
from lychee_export.verification.tolerance import Tolerance
from lychee_export.verification.validation import Parity, validate_contract, validate_values
from torch import Tensor

Outputs = tuple[Tensor, Tensor]
Fault = Callable[[Tensor, Tensor], Outputs]
Validate = Callable[..., Parity]

STRICT = Tolerance(relative_rms=1e-5, score_atol=1e-4, logit_atol=4e-4, relative_max=1e-5)
LOOSE = Tolerance(relative_rms=10.0, score_atol=0.1, logit_atol=10.0, relative_max=10.0)


def score(logits: Tensor) -> Outputs:
    return torch.sigmoid(logits), logits


@pytest.fixture
def validate(tmp_path: Path, toy: Checkpoint, make_piece: Callable[[Fault | None], Piece]) -> Validate:
    """Compare an encoder, exported with a fault, with the faithful one; ``moved`` is added to what it should give."""
    expected = compute_expected(toy, toy.make_reference())

    def run(fault: Fault | None, tolerance: Tolerance = STRICT, **moved: float) -> Parity:
        path = tmp_path / "model.onnx"
        export_onnx(make_piece(fault), path)
        sample = expected.ensemble_samples["rerank"]
        outputs = {name: value + np.float32(moved.get(name, 0)) for name, value in sample.outputs.items()}
        changed = replace(expected, ensemble_samples={"rerank": replace(sample, outputs=outputs)})
        return validate_values(changed, lambda _: open_session(path), tolerance)

    return run


def test_faithful_export_passes_and_is_measured(validate: Validate) -> None:
    parity = validate(None)
    assert parity.kendall_tau == 1.0
    assert parity.max_abs_error < 1e-6
    assert parity.max_logit_error < 1e-6
    assert parity.batch_invariance < 1e-6
    assert parity.logit_batch_invariance < 1e-6


def test_differences_of_scores_and_logits_are_told_apart(validate: Validate) -> None:
    parity = validate(lambda logits, _: score(logits + 0.1), LOOSE)
    assert parity.max_logit_error == pytest.approx(0.1, abs=1e-5)
    assert 0.02 < parity.max_score_error < 0.025


def test_wrong_value_is_refused(validate: Validate) -> None:
    with pytest.raises(ValidationError, match=r"batch of 1: differs from the reference by up to 0\.0"):
        validate(lambda logits, _: score(logits * 0.99))


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (lambda logits, _: (logits.sigmoid() / (logits - logits), logits), "relevance_score"),
        (lambda logits, _: (torch.sigmoid(logits), logits + torch.inf), "logits"),
    ],
)
def test_value_that_is_not_finite_is_refused(validate: Validate, fault: Fault, name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name}, batch of 1: 1 of 1 values are not finite"):
        validate(fault)


def test_rounded_weights_may_change_the_order_of_scores_within_the_tolerance(validate: Validate) -> None:
    rounded = replace(LOOSE, score_atol=1.0, relative_max=None)
    assert validate(lambda logits, _: score(-logits), rounded).kendall_tau == -1.0
    with pytest.raises(ValidationError, match="order is untested"):
        validate(None, replace(rounded, relative_max=10.0))


def test_wrong_shape_is_refused(validate: Validate) -> None:
    with pytest.raises(ValidationError, match=r"shape \(1, 2\)"):
        validate(lambda logits, _: score(torch.cat([logits, logits], 1)))


def test_wrong_score_of_an_ensemble_is_refused(validate: Validate) -> None:
    with pytest.raises(ValidationError, match="rerank: relevance_score: differs"):
        validate(None, LOOSE, relevance_score=0.2)


def test_wrong_logits_of_an_ensemble_are_refused_although_the_scores_pass(validate: Validate) -> None:
    with pytest.raises(ValidationError, match="rerank: logits: differs"):
        validate(None, replace(LOOSE, logit_atol=5e-3), logits=0.02)


def test_score_that_is_not_the_sigmoid_of_its_logit_is_refused(validate: Validate) -> None:
    with pytest.raises(ValidationError, match="relevance_score differs from the sigmoid of logits by up to 1e-05"):
        validate(lambda logits, _: (torch.sigmoid(logits) + 1e-5, logits), LOOSE)


def test_changed_ranking_order_is_refused(validate: Validate) -> None:
    with pytest.raises(ValidationError, match="ranking order differs"):
        validate(
            lambda logits, _: score((logits.sigmoid() + 0.09 * torch.sign(torch.sin(25 * logits.sigmoid()))).logit()),
            LOOSE,
        )


def test_score_that_depends_on_its_batch_is_refused(validate: Validate) -> None:
    with pytest.raises(ValidationError, match=r"relevance_score moves by .* alone instead of in a batch of 7"):
        validate(lambda logits, _: score(logits + 1e-2 * logits.sigmoid().mean(0, keepdim=True)), LOOSE)


def test_score_that_depends_on_padding_is_refused(validate: Validate) -> None:
    with pytest.raises(ValidationError, match=r"relevance_score moves by .* padded to the next bucket"):
        validate(lambda logits, mask: score(logits + 4e-3 * mask.shape[1] / 16), LOOSE)


def test_logit_that_depends_on_padding_is_refused_although_its_score_does_not(validate: Validate) -> None:
    with pytest.raises(
        ValidationError, match=r"logits moves by 0\.001 .* padded to the next bucket; accepted is 0\.0004"
    ):
        validate(lambda logits, mask: (torch.sigmoid(logits), logits + 1e-3 * (mask.shape[1] / 16 - 1)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: replace(s, inputs=(replace(s.inputs[0], name="ids"), s.inputs[1])), "inputs are"),
        (lambda s: replace(s, inputs=s.inputs[::-1]), "inputs are"),
        (lambda s: replace(s, inputs=(replace(s.inputs[0], dtype="float32"), s.inputs[1])), "inputs are"),
        (lambda s: replace(s, outputs=(replace(s.outputs[0], shape=(2,)), s.outputs[1])), "outputs are"),
        (lambda s: replace(s, outputs=s.outputs[::-1]), "outputs are"),
        (lambda s: replace(s, outputs=s.outputs[:1]), "outputs are"),
        (lambda s: replace(s, max_batch_size=0), "inputs are"),
    ],
)
def test_contract_breach_is_named(
    tmp_path: Path, toy: Checkpoint, change: Callable[[ModelSignature], ModelSignature], message: str
) -> None:
    (piece,) = toy.pieces
    path = tmp_path / "model.onnx"
    export_onnx(piece, path)
    validate_contract(path, piece.signature)
    with pytest.raises(ValidationError, match=message):
        validate_contract(path, change(piece.signature))


def test_export_says_nothing_about_the_machine(tmp_path: Path, toy: Checkpoint) -> None:
    path = tmp_path / "model.onnx"
    export_onnx(toy.pieces[0], path)
    assert b"site-packages" not in path.read_bytes()
    assert b".py" not in path.read_bytes()


def test_export_is_reproducible(tmp_path: Path, toy: Checkpoint) -> None:
    first, second = tmp_path / "first.onnx", tmp_path / "second.onnx"
    for path in (first, second):
        export_onnx(toy.pieces[0], path)
    assert first.read_bytes() == second.read_bytes()
