"""How far a model's outputs may be from the reference's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lychee_export.errors import ValidationError

__all__ = ["Tolerance", "check_output", "check_score"]

_SMALLEST_SCALE = 1e-6
"""Keeps a share of nothing finite."""


@dataclass(frozen=True)
class Tolerance:
    """What may differ from the reference.

    An error is measured in the output's own root mean square: the scale of hidden states is the checkpoint's, and a
    final norm whose weights are 8 multiplies errors by 8, too. Scores and logits have a scale of their own.

    Args:
        relative_rms: The root mean square of an output's error, as a share of the output's own.
        score_atol: The absolute error of relevance_score.
        logit_atol: The error of logits, absolute up to 1 and relative beyond: they are unbounded, an error of the
            embeddings is multiplied by the scoring head's scale and no sigmoid flattens it.
        relative_max: The error of any single element, as a share of the output's root mean square or, where that is
            more, of the element. None where rounded weights move single elements far and the whole a little.
    """

    relative_rms: float
    score_atol: float
    logit_atol: float
    relative_max: float | None = None

    @property
    def atols(self) -> Mapping[str, float]:
        """The tolerances of what has a scale of its own, by tensor name."""
        return {"relevance_score": self.score_atol, "logits": self.logit_atol}

    @property
    def rounded(self) -> bool:
        """Whether weights are rounded so far that scores within the tolerance may change their order."""
        return self.relative_max is None


def check_output(name: str, values: NDArray[np.generic], reference: NDArray[np.generic], tolerance: Tolerance) -> float:
    """Compare an output without a scale of its own, such as hidden states or embeddings.

    Args:
        name: Of the output, for the message.
        values: What the model gave.
        reference: What it should have given.
        tolerance: What may differ.

    Returns:
        The largest absolute error.

    Raises:
        ValidationError: A value is not finite, an element is off, or all of them together are.
    """
    error, expected = _compare(name, values, reference)
    scale = max(float(np.sqrt((expected**2).mean())), _SMALLEST_SCALE)
    share = float(np.sqrt((error**2).mean())) / scale
    advice = ". Choose a precision with more bits" if tolerance.rounded else ""
    if share > tolerance.relative_rms:
        raise ValidationError(
            f"{name}: the error's root mean square is {share:.3g} of the reference's; accepted is "
            f"{tolerance.relative_rms:g}{advice}"
        )
    worst = float((error / np.maximum(scale, np.abs(expected))).max())
    # An output in half floats may be rounded to the next one.
    rounding = float(np.finfo(np.float16).eps) if values.dtype == np.float16 else 0.0
    if tolerance.relative_max is not None and worst > tolerance.relative_max + rounding:
        raise ValidationError(
            f"{name}: an element differs from the reference by {worst:.3g} of the output's root mean square, or of "
            f"itself if that is more; accepted is {tolerance.relative_max:g}"
        )
    return float(error.max())


def check_score(name: str, values: NDArray[np.generic], reference: NDArray[np.generic], atol: float) -> float:
    """Compare scores or logits.

    Args:
        name: Of the output, for the message.
        values: What the model gave.
        reference: What it should have given.
        atol: The accepted error: absolute up to 1, relative beyond.

    Returns:
        The largest absolute error.

    Raises:
        ValidationError: A value is not finite, or is off.
    """
    error, expected = _compare(name, values, reference)
    if (error > atol * np.maximum(1, np.abs(expected))).any():
        raise ValidationError(
            f"{name}: differs from the reference by up to {error.max():.3g}; accepted is {atol:g}, and beyond 1 that "
            "share of the value"
        )
    return float(error.max())


def _compare(
    name: str, values: NDArray[np.generic], reference: NDArray[np.generic]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the absolute errors and the reference."""
    if values.shape != reference.shape:
        raise ValidationError(f"{name}: shape {values.shape}, the reference has {reference.shape}")
    seen, expected = values.astype(np.float64), reference.astype(np.float64)
    if not np.isfinite(seen).all():
        raise ValidationError(f"{name}: {int((~np.isfinite(seen)).sum())} of {seen.size} values are not finite")
    return np.abs(seen - expected), expected
