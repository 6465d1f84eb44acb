"""Whether half floats hold a model's values and keep its scores, computed as a GPU computes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lychee_export.contract.signature import ModelSignature, Tensors
from lychee_export.errors import ValidationError
from lychee_export.families import Checkpoint, Reference
from lychee_export.families.samples import extreme_images
from lychee_export.onnx.half import HALF_TYPES
from lychee_export.onnx.half_kernels import half_kernels
from lychee_export.onnx.quantization import Precision
from lychee_export.verification.expected import Sample, run_ensemble
from lychee_export.verification.validation import TOLERANCES

__all__ = ["HalfFloats", "check_half_floats"]

_MOST_PASSES = 4
_MOST_NAMED = 4
_FIXED_IMAGE_AXES = 4


@dataclass(frozen=True)
class HalfFloats:
    """What half floats do to a model.

    Args:
        kept: By encoder, the names of the parts that stay in float32, each with the reason.
        score_error: The largest error of an ensemble's score, computed as a GPU computes it.
    """

    kept: Mapping[str, Mapping[str, str]]
    score_error: float

    def lines(self) -> Iterator[str]:
        """Yield the report, line by line."""
        yield f"half floats move a score by at most {self.score_error:.1e}"
        for name, parts in self.kept.items():
            if parts:
                named = [f"{part} ({reason})" for part, reason in list(parts.items())[:_MOST_NAMED]]
                more = f" and {len(parts) - len(named)} more" if len(parts) > len(named) else ""
                yield f"{name}: in float32 stay {', '.join(named)}{more}"


def check_half_floats(
    checkpoint: Checkpoint, reference: Reference, precision: Precision, progress: Callable[[str], None] = lambda _: None
) -> HalfFloats | None:
    """Run the encoders in half floats, on realistic rows and on images that make large values.

    Args:
        checkpoint: The checkpoint, in float32.
        reference: What the reference implementation computed.
        precision: The precision of the weights.
        progress: Called with a line for each step.

    Returns:
        What was found; None for weights that are no half floats.

    Raises:
        ValidationError: A value does not fit and no part could be kept, or a score is off by more than is accepted.
    """
    if precision not in HALF_TYPES:
        return None
    progress("computing in half floats, as a GPU does")
    pieces = {piece.signature.name: piece for piece in checkpoint.pieces}
    rows = list(_rows(checkpoint, reference))
    exact = [run_ensemble(pieces, ensemble, tensors) for ensemble, tensors in rows]
    kept: dict[str, dict[str, str]] = {name: {} for name, piece in pieces.items() if piece.signature.encoder}
    for _ in range(_MOST_PASSES):  # what is kept late would have changed the rows before
        before = {name: set(parts) for name, parts in kept.items()}
        with ExitStack() as stack:
            for name, parts in kept.items():
                stack.enter_context(half_kernels(name, pieces[name].module, HALF_TYPES[precision], parts))
            halved = [run_ensemble(pieces, ensemble, tensors) for ensemble, tensors in rows]
        if before == {name: set(parts) for name, parts in kept.items()}:
            break
    names = [ensemble.name for ensemble, _ in rows]
    found = HalfFloats(kept, max(_compare(*values, precision) for values in zip(halved, exact, names, strict=True)))
    for line in found.lines():
        progress(line)
    return found


def _rows(checkpoint: Checkpoint, reference: Reference) -> Iterator[tuple[ModelSignature, Tensors]]:
    """Yield the reference's rows, and rows with images that make large values, each with its ensemble."""
    extreme = reference.make_extreme_rows()
    for ensemble in checkpoint.card.ensembles:
        rows = reference.ensemble_rows[ensemble.name]
        yield ensemble, rows
        if ensemble.name in extreme:
            yield ensemble, extreme[ensemble.name]
        elif rows.get("pixel_values", np.empty(0)).ndim == _FIXED_IMAGE_AXES:
            yield ensemble, rows | {"pixel_values": _draw_over(rows["pixel_values"])}


def _draw_over(pixel_values: NDArray[np.generic]) -> NDArray[np.generic]:
    """Draw other images in the place of those, uint8, (batch_size, 3, height, width)."""
    rows, _, height, width = pixel_values.shape
    drawn = [np.asarray(image).transpose(2, 0, 1) for image in extreme_images(width, height)]
    return np.stack([drawn[row % len(drawn)] for row in range(rows)])


def _compare(halved: Sample, exact: Sample, name: str, precision: Precision) -> float:
    """Return the largest error of a score.

    Raises:
        ValidationError: It, or that of a logit, is more than is accepted.
    """
    tolerance = TOLERANCES[precision]
    errors = {}
    for output, accepted in (("relevance_score", tolerance.score_atol), ("logits", tolerance.logit_atol)):
        error = np.abs(halved.outputs[output].astype(np.float64) - exact.outputs[output].astype(np.float64)).max()
        errors[output] = float(error)
        if not error <= accepted:
            raise ValidationError(
                f"{name}: computed in half floats, {output} differs from float32 by {error:.3g}; accepted is "
                f"{accepted:g}. Export this checkpoint with --precision {'bf16 or ' if precision == 'fp16' else ''}fp32"
            )
    return errors["relevance_score"]
