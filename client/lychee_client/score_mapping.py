"""From a logit to a probability: what a calibration has learned from labelled pairs, in numpy alone."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct

from lychee_client._errors import ConfigurationError

Array: TypeAlias = npt.NDArray[np.float64]
MAX_EXPONENT: Final = 700.0
Finite: TypeAlias = Annotated[float, Meta(gt=-1e300, lt=1e300)]


class PlattMapping(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="platt"):
    """A logistic curve: probability = 1 / (1 + exp(-(slope * logit + intercept)))."""

    slope: Finite
    intercept: Finite

    def probability(self, logits: npt.ArrayLike) -> Array:
        """Return the probability that a pair with this logit is relevant: in [0, 1], in the shape of `logits`."""
        exponent = -(self.slope * np.asarray(logits, float) + self.intercept)
        probability: Array = 1 / (1 + np.exp(np.clip(exponent, -MAX_EXPONENT, MAX_EXPONENT)))
        return probability


class IsotonicMapping(Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="isotonic"):
    """A rising line through knots; beyond the outer knots it stays level.

    Args:
        logits: The logits of the knots, strictly ascending.
        probabilities: The probabilities of the knots, one per logit, in [0, 1], never falling.

    Raises:
        ConfigurationError: The knots are not like that.
    """

    logits: tuple[Finite, ...]
    probabilities: tuple[Finite, ...]

    def __post_init__(self) -> None:
        logits, probabilities = np.array(self.logits), np.array(self.probabilities)
        if not (
            0 < len(logits) == len(probabilities)
            and np.isfinite(logits).all()
            and (np.diff(logits) > 0).all()
            and (np.diff(probabilities) >= 0).all()
            and ((probabilities >= 0) & (probabilities <= 1)).all()
        ):
            raise ConfigurationError(
                f"mapping has {len(logits)} logits and {len(probabilities)} probabilities; expected as many of one as "
                "of the other, finite logits in ascending order, and probabilities in [0, 1] that never fall"
            )

    def probability(self, logits: npt.ArrayLike) -> Array:
        """Return the probability that a pair with this logit is relevant: in [0, 1], in the shape of `logits`."""
        return np.asarray(np.interp(np.asarray(logits, float), self.logits, self.probabilities))


ScoreMapping: TypeAlias = PlattMapping | IsotonicMapping
