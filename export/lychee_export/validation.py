"""Check that an exported model keeps the contract and computes what the reference computes.

Checked in this order: names, dtypes and axes; finite values; values against torch for several batch sizes; then
for each ensemble, on realistic rows, the scores and logits, that they belong together, the scores' ranking order, and
that neither depends on the row's batch or its padding. The first breach raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto

from .errors import ValidationError
from .families import Checkpoint, Piece
from .quantization import Precision
from .runtime import Provider, run_ensemble, run_model
from .signature import BATCH_AXIS, Axis, ModelSignature, Tensors, TensorSpec

__all__ = [
    "BATCH_INVARIANCE_ATOL",
    "SIGMOID_ATOL",
    "TOLERANCES",
    "Parity",
    "Tolerance",
    "validate_contract",
    "validate_values",
]

BATCH_INVARIANCE_ATOL: Mapping[str, float] = {"relevance_score": 1e-4, "logits": 4e-4}
"""How far an output may move with its batch neighbours or its padding. The logit's move is the one that moves a score
of 0.5 as far as allowed; scores near 0 and 1 hide it."""

SIGMOID_ATOL = 1e-6
"""How far a score may be from the sigmoid of its logit: room for float32 alone."""

_BATCH_SIZES = (1, 3, 7)
_ELEMENT_TYPES = {
    "float32": TensorProto.FLOAT,
    "int64": TensorProto.INT64,
    "string": TensorProto.STRING,
    "uint8": TensorProto.UINT8,
}


@dataclass(frozen=True)
class Tolerance:
    """What may differ from the reference.

    Args:
        atol: For every output of every model: |value - reference| <= atol + rtol * |reference|.
        rtol: See atol.
        score_atol: Absolute, for an ensemble's relevance_score.
        logit_atol: Absolute, for an ensemble's logits: they are unbounded, an error of the embeddings is multiplied by
            the scoring head's scale and no sigmoid flattens it.
    """

    atol: float
    rtol: float
    score_atol: float
    logit_atol: float


TOLERANCES: Mapping[tuple[Precision, Provider], Tolerance] = {
    ("fp32", "cpu"): Tolerance(atol=2e-5, rtol=1e-4, score_atol=1e-4, logit_atol=4e-4),
    ("fp32", "openvino"): Tolerance(atol=2e-2, rtol=0.0, score_atol=2e-2, logit_atol=0.1),
    ("w8", "cpu"): Tolerance(atol=1.5e-2, rtol=0.0, score_atol=1e-2, logit_atol=0.1),
    ("w4", "cpu"): Tolerance(atol=1.5e-2, rtol=0.0, score_atol=1e-2, logit_atol=0.25),
}
"""Accepted error by weight precision and provider. OpenVINO may compute in bfloat16: torch's emulation of it moves an
embedding by up to 0.008, a score by up to 0.006 and a logit by up to 0.03. Logits move by 0.03 with w8, by 0.12 with
w4."""


@dataclass(frozen=True)
class Parity:
    """Measured differences from the torch reference.

    Args:
        max_abs_error: Largest difference of any output element of any model.
        max_score_error: Largest difference of an ensemble's relevance_score.
        max_logit_error: Largest difference of an ensemble's logits.
        kendall_tau: Smallest rank correlation of an ensemble's scores with the reference's.
        batch_invariance: Largest difference of a score alone, in a batch and padded.
        logit_batch_invariance: The same of a logit.
    """

    max_abs_error: float
    max_score_error: float
    max_logit_error: float
    kendall_tau: float
    batch_invariance: float
    logit_batch_invariance: float


def validate_contract(model: onnx.ModelProto, signature: ModelSignature) -> None:
    """Compare an ONNX file's inputs and outputs with the signature.

    Raises:
        ValidationError: A name, a dtype or an axis differs.
    """
    onnx.checker.check_model(model)
    batched = signature.max_batch_size > 0
    for kind, values, specs in (
        ("input", model.graph.input, signature.inputs),
        ("output", model.graph.output, signature.outputs),
    ):
        seen = [_describe(value) for value in values]
        expected = [_expect(spec, batched) for spec in specs]
        if seen != expected:
            raise ValidationError(f"{signature.name}: the ONNX file's {kind}s are {seen}, expected {expected}")


def validate_values(
    checkpoint: Checkpoint,
    sessions: Mapping[str, onnxruntime.InferenceSession],
    tolerance: Tolerance,
) -> Parity:
    """Compare the exported models with the torch modules.

    Args:
        checkpoint: The reference.
        sessions: One open session per piece, by model name.
        tolerance: What may differ.

    Raises:
        ValidationError: A value is not finite or off, a score is not the sigmoid of its logit, a ranking changed, or a
            score or a logit depends on its batch.
    """
    piece_errors = [
        _check_piece(piece, sessions[piece.signature.name], rows, tolerance)
        for piece in checkpoint.pieces
        for rows in _BATCH_SIZES
    ]
    pieces = {piece.signature.name: piece for piece in checkpoint.pieces}
    accepted = {"relevance_score": tolerance.score_atol, "logits": tolerance.logit_atol}
    errors: dict[str, list[float]] = {name: [] for name in accepted}
    moves: dict[str, list[float]] = {name: [] for name in accepted}
    taus = []
    for ensemble in checkpoint.ensembles:
        rows = checkpoint.ensemble_rows[ensemble.name]
        outputs = run_ensemble(sessions, ensemble, rows)
        reference = _run_reference(pieces, ensemble, rows)
        for name, atol in accepted.items():
            errors[name].append(_compare(f"{ensemble.name}: {name}", outputs[name], reference[name], atol))
        _check_sigmoid(ensemble.name, outputs)
        taus.append(_check_order(ensemble.name, outputs, reference, tolerance.score_atol))
        for name, move in _check_invariance(sessions, ensemble, rows, outputs, checkpoint.buckets).items():
            moves[name].append(move)
    return Parity(
        max_abs_error=max(piece_errors),
        max_score_error=max(errors["relevance_score"]),
        max_logit_error=max(errors["logits"]),
        kendall_tau=min(taus),
        batch_invariance=max(moves["relevance_score"]),
        logit_batch_invariance=max(moves["logits"]),
    )


def _describe(value: onnx.ValueInfoProto) -> tuple[str, int, tuple[int | str, ...]]:
    tensor = value.type.tensor_type
    return value.name, tensor.elem_type, tuple(axis.dim_param or axis.dim_value for axis in tensor.shape.dim)


def _expect(spec: TensorSpec, batched: bool) -> tuple[str, int, tuple[int | str, ...]]:
    shape = tuple(size.name if isinstance(size, Axis) else size for size in spec.shape)
    return spec.name, _ELEMENT_TYPES[spec.dtype], (BATCH_AXIS, *shape) if batched else shape


def _check_piece(piece: Piece, session: onnxruntime.InferenceSession, rows: int, tolerance: Tolerance) -> float:
    signature = piece.signature
    inputs = piece.sample_inputs(np.random.default_rng(rows), rows)
    outputs = run_model(session, signature, inputs)
    reference = _run_module(piece, inputs)
    return max(
        _compare(
            f"{signature.name}: {spec.name}, batch of {rows}",
            outputs[spec.name],
            reference[spec.name],
            tolerance.atol,
            tolerance.rtol,
        )
        for spec in signature.outputs
    )


def _run_module(piece: Piece, tensors: Tensors) -> Tensors:
    with torch.no_grad():
        outputs = piece.module(*(torch.from_numpy(tensors[spec.name]) for spec in piece.signature.inputs))
    if isinstance(outputs, torch.Tensor):
        outputs = (outputs,)
    return {spec.name: value.numpy() for spec, value in zip(piece.signature.outputs, outputs, strict=True)}


def _run_reference(pieces: Mapping[str, Piece], ensemble: ModelSignature, rows: Tensors) -> Tensors:
    tensors = dict(rows)
    for step in ensemble.steps:
        tensors |= _run_module(pieces[step.name], tensors)
    return {spec.name: tensors[spec.name] for spec in ensemble.outputs}


def _compare(
    name: str, values: NDArray[np.generic], reference: NDArray[np.generic], atol: float, rtol: float = 0.0
) -> float:
    """Return the largest absolute error, or raise if an element is not finite or off."""
    if values.shape != reference.shape:
        raise ValidationError(f"{name}: shape {values.shape}, the reference has {reference.shape}")
    seen, expected = values.astype(np.float64), reference.astype(np.float64)
    if not np.isfinite(seen).all():
        raise ValidationError(f"{name}: {int((~np.isfinite(seen)).sum())} of {seen.size} values are not finite")
    error = np.abs(seen - expected)
    if (error > atol + rtol * np.abs(expected)).any():
        raise ValidationError(
            f"{name}: differs from the reference by up to {error.max():.3g}; accepted are atol {atol:g} and "
            f"rtol {rtol:g}"
        )
    return float(error.max())


def _check_sigmoid(name: str, outputs: Tensors) -> None:
    expected = torch.from_numpy(outputs["logits"]).double().sigmoid().numpy()
    error = float(np.abs(outputs["relevance_score"].astype(np.float64) - expected).max())
    if error > SIGMOID_ATOL:
        raise ValidationError(
            f"{name}: relevance_score differs from the sigmoid of logits by up to {error:.3g}; accepted is "
            f"{SIGMOID_ATOL:g}"
        )


def _check_order(name: str, outputs: Tensors, reference: Tensors, score_atol: float) -> float:
    """Return Kendall's tau over the pairs of rows whose reference scores differ by more than the tolerance."""
    scores, expected = (tensors["relevance_score"][:, 0].astype(np.float64) for tensors in (outputs, reference))
    clear = expected[:, None] - expected[None, :] > score_atol
    concordant = (scores[:, None] > scores[None, :]) & clear
    if not clear.any():
        raise ValidationError(f"{name}: no two sample rows differ by more than {score_atol:g}, order is untested")
    tau = float(2 * concordant.sum() / clear.sum() - 1)
    if tau < 1:
        raise ValidationError(f"{name}: the ranking order differs from the reference, Kendall's tau is {tau:.3f}")
    return tau


def _check_invariance(
    sessions: Mapping[str, onnxruntime.InferenceSession],
    ensemble: ModelSignature,
    rows: Tensors,
    outputs: Tensors,
    buckets: tuple[int, ...],
) -> dict[str, float]:
    """Return by output how far a value moves when its row stands alone or is padded to the next bucket, or raise."""
    count = len(outputs["relevance_score"])
    alone = [
        run_ensemble(sessions, ensemble, {name: value[row : row + 1] for name, value in rows.items()})
        for row in range(count)
    ]
    variants = {
        f"alone instead of in a batch of {count}": {
            name: np.concatenate([values[name] for values in alone]) for name in outputs
        }
    }
    padded = _pad_to_next_bucket(ensemble, rows, buckets)
    if padded is not None:
        variants["padded to the next bucket"] = run_ensemble(sessions, ensemble, padded)
    moves = dict.fromkeys(BATCH_INVARIANCE_ATOL, 0.0)
    for variant, values in variants.items():
        for name, atol in BATCH_INVARIANCE_ATOL.items():
            move = float(np.abs(values[name].astype(np.float64) - outputs[name].astype(np.float64)).max())
            if not move <= atol:
                raise ValidationError(
                    f"{ensemble.name}: {name} moves by {move:.3g} when its row is {variant}; accepted is {atol:g}"
                )
            moves[name] = max(moves[name], move)
    return moves


def _pad_to_next_bucket(ensemble: ModelSignature, rows: Tensors, buckets: tuple[int, ...]) -> Tensors | None:
    """Pad the variable axes of the rows to the next larger bucket; None if there is none.

    Raises:
        ValidationError: The rows fill the largest bucket, so that padding cannot be tested.
    """
    padded = dict(rows)
    for spec in ensemble.inputs:
        if not (spec.shape and isinstance(spec.shape[0], Axis)):
            continue
        length = rows[spec.name].shape[1]
        larger = [bucket for bucket in buckets if bucket > length]
        if not larger:
            raise ValidationError(f"{ensemble.name}: sample rows of {length} leave no larger bucket of {buckets}")
        width = ((0, 0), (0, larger[0] - length))
        padded[spec.name] = np.pad(rows[spec.name], width, constant_values=spec.pad_value)
    return padded if any(padded[name] is not rows[name] for name in rows) else None
