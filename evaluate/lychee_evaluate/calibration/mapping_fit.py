"""Fitting the mappings that make scores into probabilities; numpy is enough for it."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import numpy as np
from lychee_client.score_mapping import Array, IsotonicMapping, PlattMapping, ScoreMapping

MappingKind: TypeAlias = Literal["platt", "isotonic"]
MAX_STEPS: Final = 100
CONVERGED: Final = 1e-10


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
        return _fit_rising(logits, labels)
    positives = labels.sum()
    soft = np.where(labels > 0, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2))
    # Standard scale, for the sake of the steps.
    centre, scale = float(logits.mean()), float(logits.std()) or 1.0
    slope, intercept = _fit_logistic((logits - centre) / scale, soft)
    return PlattMapping(slope / scale, intercept - slope / scale * centre)


def _fit_logistic(values: Array, targets: Array) -> tuple[float, float]:
    """Return slope and intercept of least cross-entropy by Newton's method; a step that leads up is halved."""
    columns = np.stack([values, np.ones(len(values))], axis=1)
    coefficients = np.zeros(2)

    def loss(coefficients: Array) -> float:
        logits = columns @ coefficients
        return float((np.logaddexp(0, logits) - targets * logits).sum())

    for _ in range(MAX_STEPS):
        probabilities = 1 / (1 + np.exp(-(columns @ coefficients)))
        gradient = columns.T @ (probabilities - targets)
        curvature = (columns * (probabilities * (1 - probabilities))[:, None]).T @ columns
        # The least of all steps where several are right: equal logits say nothing about the slope.
        step = np.linalg.lstsq(curvature, gradient, rcond=None)[0]
        while loss(coefficients - step) > loss(coefficients) and np.abs(step).max() > CONVERGED:
            step /= 2
        coefficients = coefficients - step
        if np.abs(step).max() <= CONVERGED:
            break
    return float(coefficients[0]), float(coefficients[1])


def _fit_rising(logits: Array, labels: Array) -> IsotonicMapping:
    """Return the rising line of least squares: neighbours that fall are pooled into their mean until none does."""
    points, place, counts = np.unique(logits, return_inverse=True, return_counts=True)
    sums = np.bincount(place, weights=labels)
    pools: list[tuple[float, int, int]] = []  # sum of labels, pairs, points
    for total, pairs in zip(sums.tolist(), counts.tolist(), strict=True):
        pool = (total, pairs, 1)
        while pools and pools[-1][0] * pool[1] >= pool[0] * pools[-1][1]:
            before = pools.pop()
            pool = (before[0] + pool[0], before[1] + pool[1], before[2] + pool[2])
        pools.append(pool)
    means = np.repeat([total / pairs for total, pairs, _ in pools], [width for *_, width in pools])
    # Between its ends a level piece needs no points.
    kept = np.ones(len(points), bool)
    kept[1:-1] = (means[1:-1] != means[:-2]) | (means[1:-1] != means[2:])
    return IsotonicMapping(tuple(points[kept].tolist()), tuple(means[kept].tolist()))
