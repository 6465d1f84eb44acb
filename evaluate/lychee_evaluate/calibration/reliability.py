"""How well probabilities keep what they promise, and the mapping that makes scores into such probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from lychee_client.score_mapping import Array, IsotonicMapping, PlattMapping, ScoreMapping

MappingKind: TypeAlias = Literal["platt", "isotonic"]
BINS: Final = 10
FOLDS: Final = 5
CHANCE_DRAWS: Final = 200


@dataclass(frozen=True, slots=True)
class Reliability:
    """Expected calibration errors: mean distance between promised and found share of relevant pairs, in [0, 1].

    Attributes:
        before: The error of the relevance scores, taken as probabilities.
        after: The error of the mapped probabilities, each pair mapped by what the other queries' pairs gave
            (cross-validation). None if too few queries have both kinds of pairs.
        chance: The mean error that perfect probabilities would show with so few pairs; no mapping can be expected to do
            better.
    """

    before: float
    after: float | None
    chance: float


def expected_calibration_error(probabilities: Array, labels: Array) -> float:
    """Compare promised with found shares in ten bins of equal width, weighted by their number of pairs.

    Args:
        probabilities: The promised probabilities of being relevant, (pairs,), in [0, 1].
        labels: The labels, 0 or 1, (pairs,).

    Source: Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian Binning, AAAI 2015.
    """
    bins = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], probabilities, side="right")
    gaps = np.bincount(bins, weights=probabilities - labels, minlength=BINS)
    return float(np.abs(gaps).sum() / len(labels))


def fit_mapping(kind: MappingKind, logits: Array, labels: Array) -> ScoreMapping:
    """Learn the mapping from logits to probabilities.

    Args:
        kind: The kind of mapping: "platt", a logistic curve with two coefficients; or "isotonic", any rising line, for
            many pairs.
        logits: The logits of the pairs, (pairs,).
        labels: The labels, 0 or 1, with at least one of each, (pairs,).

    Source: Platt, Probabilistic Outputs for Support Vector Machines, 1999: labels are pulled in a little, to
        1 / (n0 + 2) and (n1 + 1) / (n1 + 2), so that the curve stays finite where a threshold separates them.
    """
    if kind == "isotonic":
        from sklearn.isotonic import IsotonicRegression

        isotonic = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(logits, labels)
        return IsotonicMapping(
            tuple(isotonic.X_thresholds_.tolist()), tuple(np.clip(isotonic.y_thresholds_, 0, 1).tolist())
        )
    from sklearn.linear_model import LogisticRegression

    positives = labels.sum()
    soft = np.where(labels > 0, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2))
    # A soft label is one pair of each class with weights that add up to one; standard scale, for the optimizer's sake.
    centre, scale = logits.mean(), logits.std() or 1.0
    standard = ((logits - centre) / scale)[:, None]
    regression = LogisticRegression(C=np.inf).fit(
        np.concatenate([standard, standard]),
        np.concatenate([np.ones(len(labels)), np.zeros(len(labels))]),
        sample_weight=np.concatenate([soft, 1 - soft]),
    )
    slope = float(regression.coef_[0, 0]) / scale
    return PlattMapping(float(slope), float(regression.intercept_[0] - slope * centre))


def measure_reliability(
    kind: MappingKind, scores: Array, logits: Array, labels: Array, queries: npt.NDArray[np.int64], seed: int
) -> Reliability:
    """Measure the calibration error before and after a mapping.

    The mapping is not judged on pairs that it was fitted to, nor on pairs of the same queries.

    Args:
        kind: The kind of mapping to fit: "platt" or "isotonic".
        scores: The relevance scores, (pairs,), in [0, 1].
        logits: The scores before the sigmoid, (pairs,).
        labels: The labels, 0 or 1, (pairs,).
        queries: The number of each pair's query, (pairs,).
        seed: The seed of the folds and of the random draws.
    """
    held_out = _cross_validate(kind, logits, labels, queries, seed)
    probabilities = fit_mapping(kind, logits, labels).probability(logits) if held_out is None else held_out
    draws = np.random.default_rng(seed).random((CHANCE_DRAWS, len(labels))) < probabilities
    return Reliability(
        expected_calibration_error(scores, labels),
        None if held_out is None else expected_calibration_error(held_out, labels),
        float(np.mean([expected_calibration_error(probabilities, draw.astype(float)) for draw in draws])),
    )


def _cross_validate(
    kind: MappingKind, logits: Array, labels: Array, queries: npt.NDArray[Any], seed: int
) -> Array | None:
    """Map every pair by a fit to other queries; None if a fold would have one class only."""
    from sklearn.model_selection import StratifiedGroupKFold

    # Each class must come from at least as many queries as there are folds, or a fit may see only the other class.
    folds = min(FOLDS, *(len(np.unique(queries[labels == label])) for label in (0, 1)))
    if folds < 2:
        return None
    probabilities = np.empty(len(labels))
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for train, test in splitter.split(logits[:, None], labels, queries):
        if len(np.unique(labels[train])) < 2:
            return None
        probabilities[test] = fit_mapping(kind, logits[train], labels[train]).probability(logits[test])
    return probabilities
