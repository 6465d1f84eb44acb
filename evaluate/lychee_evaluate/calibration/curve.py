"""What every threshold does to labelled pairs, as numbers for a drawing of any kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from lychee_evaluate.calibration.pair_scores import PairScores

BINS: Final = 25
MAX_POINTS: Final = 400


@dataclass(frozen=True, slots=True)
class Curve:
    """Precision, recall and F1 over thresholds, and where the scores lie.

    Attributes:
        thresholds: The thresholds, ascending, inclusive; a threshold between two accepts what the upper one accepts.
        accepted: How many pairs each accepts.
        precision: The share of the accepted pairs that is relevant.
        recall: The share of the relevant pairs that is accepted.
        f1: The harmonic mean of precision and recall.
        relevant: How many relevant pairs have a score in each of BINS equal parts of [0, 1].
        irrelevant: How many irrelevant ones have.
    """

    thresholds: tuple[float, ...]
    accepted: tuple[int, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    f1: tuple[float, ...]
    relevant: tuple[int, ...]
    irrelevant: tuple[int, ...]


def trace_curve(scored: PairScores, limit: int = MAX_POINTS) -> Curve:
    """Return what the pairs' scores as thresholds do; of many scores, evenly chosen ones with both ends.

    Args:
        scored: The labelled pairs with their scores; at least one is relevant.
        limit: The most thresholds.
    """
    labels = np.array([bool(pair.relevant) for pair in scored.pairs])
    order = np.argsort(scored.scores, kind="stable")
    thresholds, first = np.unique(scored.scores[order], return_index=True)
    if len(thresholds) > limit:
        kept = np.unique(np.linspace(0, len(thresholds) - 1, limit).round().astype(int))
        thresholds, first = thresholds[kept], first[kept]
    accepted = len(labels) - first
    relevant = np.cumsum(labels[order][::-1])[::-1][first]
    positives = int(labels.sum())
    edges = np.linspace(0, 1, BINS + 1)
    return Curve(
        tuple(thresholds.tolist()),
        tuple(accepted.tolist()),
        tuple((relevant / accepted).tolist()),
        tuple((relevant / positives).tolist()),
        tuple((2 * relevant / (accepted + positives)).tolist()),
        tuple(np.histogram(scored.scores[labels], edges)[0].tolist()),
        tuple(np.histogram(scored.scores[~labels], edges)[0].tolist()),
    )
