"""How well probabilities keep what they promise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from lychee_client.score_mapping import Array

from lychee_evaluate.calibration.mapping_fit import MappingKind, fit_mapping

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
    # Each class must come from at least as many queries as there are folds, or a fit may see only the other class.
    folds = min(FOLDS, *(len(np.unique(queries[labels == label])) for label in (0, 1)))
    if folds < 2:
        return None
    probabilities = np.empty(len(labels))
    fold_of = _deal_out(labels, queries, folds, seed)
    for fold in range(folds):
        train, test = fold_of != fold, fold_of == fold
        if len(np.unique(labels[train])) < 2:
            return None
        probabilities[test] = fit_mapping(kind, logits[train], labels[train]).probability(logits[test])
    return probabilities


def _deal_out(labels: Array, queries: npt.NDArray[Any], folds: int, seed: int) -> npt.NDArray[np.int64]:
    """Return each pair's fold: a query's pairs stay together, and every fold gets about as much of each class.

    Queries with many pairs come first, those with equally many in random order; each goes where the squares of the
    classes' shares grow least.
    """
    names, place = np.unique(queries, return_inverse=True)
    counts = np.stack([np.bincount(place, labels == label, len(names)) for label in (0, 1)], axis=1)
    shares = counts / counts.sum(axis=0)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    filled = np.zeros((folds, 2))
    fold_of = np.empty(len(names), np.int64)
    for query in order:
        growth = ((filled + shares[query]) ** 2 - filled**2).sum(axis=1)
        fold_of[query] = growth.argmin()
        filled[fold_of[query]] += shares[query]
    return fold_of[place]
