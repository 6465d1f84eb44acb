"""From a logit to a probability: what a calibration has learned from labelled pairs, in numpy alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from lychee_client._errors import ConfigurationError

Array: TypeAlias = npt.NDArray[np.float64]
MAX_EXPONENT: Final = 700.0


@dataclass(frozen=True, slots=True)
class PlattMapping:
    """A logistic curve: probability = 1 / (1 + exp(-(slope * logit + intercept))).

    Raises:
        ConfigurationError: A coefficient is not finite.
    """

    slope: float
    intercept: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.slope) and math.isfinite(self.intercept)):
            raise ConfigurationError(
                f"mapping has slope {self.slope} and intercept {self.intercept}; expected finite numbers"
            )

    def probability(self, logits: npt.ArrayLike) -> Array:
        """Return the probability that a pair with this logit is relevant: in [0, 1], in the shape of `logits`."""
        exponent = -(self.slope * np.asarray(logits, float) + self.intercept)
        probability: Array = 1 / (1 + np.exp(np.clip(exponent, -MAX_EXPONENT, MAX_EXPONENT)))
        return probability

    def to_json(self) -> dict[str, Any]:
        """Return the mapping as JSON types."""
        return {"kind": "platt", "slope": self.slope, "intercept": self.intercept}


@dataclass(frozen=True, slots=True)
class IsotonicMapping:
    """A rising line through knots; beyond the outer knots it stays level.

    Args:
        logits: The logits of the knots, strictly ascending.
        probabilities: The probabilities of the knots, one per logit, in [0, 1], never falling.

    Raises:
        ConfigurationError: The knots are not like that.
    """

    logits: tuple[float, ...]
    probabilities: tuple[float, ...]

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

    def to_json(self) -> dict[str, Any]:
        """Return the mapping as JSON types."""
        return {"kind": "isotonic", "logits": list(self.logits), "probabilities": list(self.probabilities)}


ScoreMapping: TypeAlias = PlattMapping | IsotonicMapping
