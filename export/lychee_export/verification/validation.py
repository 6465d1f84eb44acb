"""Check that an exported model keeps the contract and computes what the torch modules compute.

Checked in this order: names, dtypes and axes; finite values; values against torch for several batch sizes; then
for each ensemble, on realistic rows, the scores and logits, that they belong together, the scores' ranking order, and
that neither depends on the row's batch or its padding. The first breach raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from lychee_client.manifest import EXACT_TOLERANCE
from numpy.typing import NDArray
from onnx import TensorProto

from lychee_export.contract.signature import BATCH_AXIS, Axis, ModelSignature, Tensors, TensorSpec
from lychee_export.errors import ValidationError
from lychee_export.onnx.model_file import read_graph
from lychee_export.onnx.quantization import Precision
from lychee_export.onnx.runtime import run_model
from lychee_export.verification.expected import ExpectedValues, Sample, run_step
from lychee_export.verification.tolerance import Tolerance, check_output, check_score

__all__ = [
    "BATCH_INVARIANCE_ATOL",
    "SIGMOID_ATOL",
    "TOLERANCES",
    "Parity",
    "pad_to_next_bucket",
    "validate_contract",
    "validate_values",
]

BATCH_INVARIANCE_ATOL: Mapping[str, float] = {"relevance_score": EXACT_TOLERANCE, "logits": 4e-4}
"""How far an output may move with its batch neighbours or its padding; beyond 1, that share of it. The logit's move is
the one that moves a score of 0.5 as far as allowed; scores near 0 and 1 hide it."""

SIGMOID_ATOL = 1e-6
"""How far a score may be from the sigmoid of its logit: room for float32 alone."""

_ELEMENT_TYPES = {
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
    "int64": TensorProto.INT64,
    "string": TensorProto.STRING,
    "uint8": TensorProto.UINT8,
}


TOLERANCES: Mapping[Precision, Tolerance] = {
    "fp32": Tolerance(relative_rms=1e-4, score_atol=EXACT_TOLERANCE, logit_atol=4e-4, relative_max=5e-4),
    "fp16": Tolerance(relative_rms=2e-2, score_atol=5e-3, logit_atol=5e-2, relative_max=0.2),
    "bf16": Tolerance(relative_rms=0.02, score_atol=3e-2, logit_atol=0.2),
    "s8": Tolerance(relative_rms=0.3, score_atol=0.15, logit_atol=1.0),
    "w8": Tolerance(relative_rms=0.05, score_atol=3e-2, logit_atol=0.2),
    "w4": Tolerance(relative_rms=0.4, score_atol=0.2, logit_atol=1.0),
}
"""Accepted error by the weights' precision, on ONNX Runtime's plain CPU provider, which computes in float32 everywhere:
so the verdict does not depend on the exporting CPU. lychee-mini's weights have 4 bits already; with w8 its logits move
by 0.10, with w4 by 0.12; with s8 a golden pair's score moves by 0.22, so that it is refused. Small random Qwen2.5-VL
and CLIP models, which nothing trained to be robust: with w8 outputs move by 0.03 of their root mean square, scores by
0.022 and logits by 0.09; with w4 by 0.30, 0.15 and 0.65. Of fp16 and bf16 these runs see the rounded weights alone.
What half kernels compute is held to the same score_atol and logit_atol in `half_floats.py`. There small random models'
scores move by up to 0.0016 with fp16 and 0.0140 with bf16, logits by 0.006 and 0.057; lychee-mini's logits by 0.10 with
bf16."""


@dataclass(frozen=True)
class Parity:
    """Measured differences from the torch reference.

    Args:
        max_abs_error: The largest difference of any output element of any model.
        max_score_error: The largest difference of an ensemble's relevance_score.
        max_logit_error: The largest difference of an ensemble's logits.
        kendall_tau: The smallest rank correlation of an ensemble's scores with the reference's.
        batch_invariance: The largest difference between a row's scores alone, in a batch and padded.
        logit_batch_invariance: The largest difference between a row's logits alone, in a batch and padded.
    """

    max_abs_error: float
    max_score_error: float
    max_logit_error: float
    kendall_tau: float
    batch_invariance: float
    logit_batch_invariance: float


def validate_contract(path: Path, signature: ModelSignature) -> None:
    """Compare an ONNX file's inputs and outputs with the signature.

    Raises:
        ValidationError: The file is no sound model, or a name, a dtype or an axis differs.
    """
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        raise ValidationError(f"{signature.name}: {path} is no valid ONNX model: {error}") from error
    graph = read_graph(path).graph
    batched = signature.max_batch_size > 0
    for kind, values, specs in (("input", graph.input, signature.inputs), ("output", graph.output, signature.outputs)):
        seen = [_describe(value) for value in values]
        expected = [_expect(spec, batched) for spec in specs]
        if seen != expected:
            raise ValidationError(f"{signature.name}: the ONNX file's {kind}s are {seen}, expected {expected}")


def validate_values(
    expected: ExpectedValues,
    open_model: Callable[[ModelSignature], onnxruntime.InferenceSession],
    tolerance: Tolerance,
) -> Parity:
    """Compare exported models with the reference, each alone and as ensembles.

    One model is open at a time: large ones would not fit beside each other.

    Args:
        expected: What the torch modules computed.
        open_model: Opens the session of a model.
        tolerance: What may differ.

    Raises:
        ValidationError: A value is not finite or off, a score is not the sigmoid of its logit, a ranking changed, or a
            score or a logit depends on its batch.
    """
    runs = [run for ensemble in expected.ensembles for run in _make_runs(ensemble, expected.ensemble_samples)]
    errors = []
    for signature in expected.signatures:
        session = open_model(signature)
        errors += [_check_sample(signature, session, sample, tolerance) for sample in expected.samples[signature.name]]
        for run in runs:
            run.step(signature, session)
        del session
    distances: dict[str, list[float]] = {name: [] for name in tolerance.atols}
    moves: dict[str, list[float]] = {name: [] for name in BATCH_INVARIANCE_ATOL}
    taus = []
    for ensemble in expected.ensembles:
        outputs, *variants = (run for run in runs if run.ensemble == ensemble)
        reference = expected.ensemble_samples[ensemble.name].outputs
        for name, atol in tolerance.atols.items():
            distances[name].append(check_score(f"{ensemble.name}: {name}", outputs[name], reference[name], atol))
        if expected.sigmoid:
            _check_sigmoid(outputs)
        taus.append(_check_order(outputs, reference, tolerance))
        for variant in variants:
            for name, atol in BATCH_INVARIANCE_ATOL.items():
                moves[name].append(_check_move(name, outputs, variant, atol))
    return Parity(
        max_abs_error=max(errors),
        max_score_error=max(distances["relevance_score"]),
        max_logit_error=max(distances["logits"]),
        kendall_tau=min(taus),
        batch_invariance=max(moves["relevance_score"]),
        logit_batch_invariance=max(moves["logits"]),
    )


class _Run:
    """An ensemble on its way through its models.

    Args:
        ensemble: The signature of the ensemble.
        variant: The way in which the rows differ from the first run's, in words.
        batches: The rows, in one batch or in several.
    """

    def __init__(self, ensemble: ModelSignature, variant: str, batches: list[Tensors]) -> None:
        self.ensemble = ensemble
        self.variant = variant
        self._batches = [dict(batch) for batch in batches]

    def step(self, signature: ModelSignature, session: onnxruntime.InferenceSession) -> None:
        """Run a model if it is one of the ensemble's."""
        if signature in self.ensemble.steps:
            for batch in self._batches:
                batch |= run_step(self.ensemble, signature, batch, partial(run_model, session, signature))

    def __getitem__(self, name: str) -> NDArray[np.generic]:
        return np.concatenate([batch[name] for batch in self._batches])


def _make_runs(ensemble: ModelSignature, samples: Mapping[str, Sample]) -> Iterator[_Run]:
    sample = samples[ensemble.name]
    rows = sample.inputs
    yield _Run(ensemble, "as it is", [rows])
    alone = [{name: value[row : row + 1] for name, value in rows.items()} for row in range(sample.rows)]
    yield _Run(ensemble, f"alone instead of in a batch of {sample.rows}", alone)
    padded = pad_to_next_bucket(ensemble, rows)
    if padded is not None:
        yield _Run(ensemble, "padded to the next bucket", [padded])


def _describe(value: onnx.ValueInfoProto) -> tuple[str, int, tuple[int | str, ...]]:
    tensor = value.type.tensor_type
    return value.name, tensor.elem_type, tuple(axis.dim_param or axis.dim_value for axis in tensor.shape.dim)


def _expect(spec: TensorSpec, batched: bool) -> tuple[str, int, tuple[int | str, ...]]:
    shape = tuple(size.name if isinstance(size, Axis) else size for size in spec.shape)
    return spec.name, _ELEMENT_TYPES[spec.dtype], (BATCH_AXIS, *shape) if batched else shape


def _check_sample(
    signature: ModelSignature, session: onnxruntime.InferenceSession, sample: Sample, tolerance: Tolerance
) -> float:
    outputs = run_model(session, signature, sample.inputs)
    errors = []
    for spec in signature.outputs:
        label = f"{signature.name}: {spec.name}, batch of {sample.rows}"
        values, reference = outputs[spec.name], sample.outputs[spec.name]
        # A model of several heads has a score and logits of each, with the head's name before them.
        atol = next((atol for name, atol in tolerance.atols.items() if spec.name.endswith(name)), None)
        if atol is not None:
            errors.append(check_score(label, values, reference, atol))
        else:
            errors.append(check_output(label, values, reference, tolerance))
    return max(errors)


def _check_sigmoid(run: _Run) -> None:
    expected = torch.from_numpy(run["logits"]).double().sigmoid().numpy()
    error = float(np.abs(run["relevance_score"].astype(np.float64) - expected).max())
    if error > SIGMOID_ATOL:
        raise ValidationError(
            f"{run.ensemble.name}: relevance_score differs from the sigmoid of logits by up to {error:.3g}; accepted "
            f"is {SIGMOID_ATOL:g}"
        )


def _check_order(run: _Run, reference: Tensors, tolerance: Tolerance) -> float:
    """Return Kendall's tau over the pairs of rows whose reference scores differ by more than the tolerance.

    Where rounded weights leave no such pair, it is that of all pairs and may be below 1.
    """
    name = run.ensemble.name
    scores, expected = (values["relevance_score"][:, 0].astype(np.float64) for values in (run, reference))
    differences = expected[:, None] - expected[None, :]
    clear = differences > tolerance.score_atol
    untested = not clear.any()
    if untested and tolerance.rounded:
        clear = differences > 0
    if not clear.any():
        raise ValidationError(
            f"{name}: no two sample rows differ by more than {tolerance.score_atol:g}, order is untested"
        )
    concordant = (scores[:, None] > scores[None, :]) & clear
    tau = float(2 * concordant.sum() / clear.sum() - 1)
    if tau < 1 and not untested:
        raise ValidationError(f"{name}: the ranking order differs from the reference, Kendall's tau is {tau:.3f}")
    return tau


def _check_move(name: str, run: _Run, variant: _Run, atol: float) -> float:
    """Return how far an output moves when its row stands alone or is padded, or raise."""
    values, moved = (part[name].astype(np.float64) for part in (run, variant))
    moves = np.abs(moved - values)
    move = float(moves.max())
    if not (moves <= atol * np.maximum(1, np.abs(values))).all():
        raise ValidationError(
            f"{run.ensemble.name}: {name} moves by {move:.3g} when its row is {variant.variant}; accepted is {atol:g}"
        )
    return move


def pad_to_next_bucket(ensemble: ModelSignature, rows: Tensors) -> Tensors | None:
    """Pad every variable axis of the rows' inputs to its next larger bucket; None if there is none.

    Raises:
        ValidationError: The rows fill an axis' largest bucket, so that its padding cannot be tested.
    """
    padded = dict(rows)
    for spec in ensemble.inputs:
        if spec.name not in rows:
            continue
        widths = [(0, 0)]
        for size, length in zip(spec.shape, rows[spec.name].shape[1:], strict=True):
            widths.append((0, _next_bucket(ensemble, size, length) - length if isinstance(size, Axis) else 0))
        if any(after for _, after in widths):
            padded[spec.name] = np.pad(rows[spec.name], widths, constant_values=spec.pad_value)
    return padded if any(padded[name] is not rows[name] for name in rows) else None


def _next_bucket(ensemble: ModelSignature, axis: Axis, length: int) -> int:
    for bucket in axis.buckets:
        if bucket > length:
            return bucket
    if len(axis.buckets) == 1:
        return length
    raise ValidationError(
        f"{ensemble.name}: sample rows with {axis.name} {length} leave no larger bucket of {axis.buckets}"
    )
