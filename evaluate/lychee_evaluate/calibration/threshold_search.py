"""The threshold for a target: found on labelled scores, with a bootstrap confidence interval."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from lychee_client import ConfigurationError, InvalidInputError

Array: TypeAlias = npt.NDArray[np.float64]
Measure: TypeAlias = Literal["precision", "recall", "f1"]

DEFAULT_TARGET: Final = "f1"
ROUNDING: Final = 1e-12
MAX_CHUNK: Final = 2**21  # numbers in one array of the bootstrap: 16 MB
_TARGET: Final = re.compile(r"(precision|recall)\s*(?:>=|≥)\s*([0-9]*\.?[0-9]+)")


@dataclass(frozen=True, slots=True)
class Target:
    """What a threshold is to reach.

    Args:
        measure: What must be reached: "precision", "recall" or "f1".
        minimum: The value to reach, in (0, 1]; None for "f1", of which the best is wanted.
    """

    measure: Measure
    minimum: float | None = None

    def __str__(self) -> str:
        return self.measure if self.minimum is None else f"{self.measure}>={self.minimum:g}"


@dataclass(frozen=True, slots=True)
class Choice:
    """A threshold and what it does to the pairs that it was chosen on.

    Attributes:
        threshold: The threshold on the relevance score, inclusive.
        precision: The share of the accepted pairs that is relevant.
        recall: The share of the relevant pairs that is accepted.
        f1: The harmonic mean of precision and recall.
    """

    threshold: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval of the threshold.

    Attributes:
        low: The lower end of the interval.
        high: The upper end of the interval.
        unreachable: The share of the resamples in which no threshold reached the target; they count as above every
            score.
    """

    low: float
    high: float
    unreachable: float


def parse_target(text: str) -> Target:
    """Read "precision>=0.95", "recall>=0.9" or "f1".

    Raises:
        ConfigurationError: It is something else.
    """
    stripped = text.strip().lower()
    if stripped == "f1":
        return Target("f1")
    match = _TARGET.fullmatch(stripped)
    if match is None or not 0 < float(match[2]) <= 1:
        raise ConfigurationError(
            f"target is {text!r}; expected 'precision>=P' or 'recall>=R' with a number above 0 and up to 1, or 'f1'"
        )
    return Target("precision" if match[1] == "precision" else "recall", float(match[2]))


def format_threshold(threshold: float) -> str:
    """Return a threshold for people: where a model is sure, scores differ in their last digits only."""
    return f"{threshold:.4f}" if threshold < 0.9999 else f"{threshold:.8f}"


def choose_threshold(scores: Array, labels: Array, target: Target) -> Choice:
    """Find the threshold for a target.

    For a precision it is the lowest threshold that reaches it (so that recall is highest), for a recall the highest
    one, for "f1" the best. It lies half way between the lowest accepted score and the highest rejected one, so that
    another machine's rounding does not turn a pair from one side to the other.

    Args:
        scores: The relevance scores, (pairs,), in [0, 1].
        labels: The labels, 0 or 1, (pairs,).
        target: The target that the threshold must reach.

    Raises:
        InvalidInputError: No threshold reaches the target; the message says what can be reached.
    """
    curve = WeightedCurve(scores, labels, np.ones((1, len(scores))))
    threshold = curve.choose(target)[0]
    if np.isinf(threshold):
        if not labels.any():
            raise InvalidInputError(f"{target} cannot be reached: no pair is relevant; label some that are")
        best = float(curve.precisions.max())
        reachable = choose_threshold(scores, labels, Target("precision", best))
        raise InvalidInputError(
            f"{target} cannot be reached on these pairs: the best precision is {best:.3f}, at threshold "
            f"{reachable.threshold:.3f} with recall {reachable.recall:.3f}; lower the target, or check the labels of "
            "the irrelevant pairs with the highest scores"
        )
    index = np.searchsorted(curve.candidates, threshold)
    return Choice(
        float(threshold),
        float(curve.precisions[0, index]),
        float(curve.recalls[0, index]),
        float(curve.f1s[0, index]),
    )


def bootstrap_interval(
    scores: Array,
    labels: Array,
    queries: npt.NDArray[np.int64],
    target: Target,
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> Interval:
    """Return the percentile bootstrap interval of the threshold, resampling whole queries.

    The pairs of one query resemble each other: drawing them one by one would take them for more evidence than they
    are, and give too narrow an interval.

    Args:
        scores: The relevance scores, (pairs,), in [0, 1].
        labels: The labels, 0 or 1, (pairs,).
        queries: The number of each pair's query, (pairs,), from 0 without gaps.
        target: The target that the threshold must reach.
        resamples: How many resamples to draw.
        confidence: The confidence level, in (0, 1), for example 0.95.
        seed: The seed of the random draws.
    """
    random = np.random.default_rng(seed)
    count = int(queries.max()) + 1
    chunk = max(1, MAX_CHUNK // max(count, len(scores)))
    found = []
    for start in range(0, resamples, chunk):
        draws = min(chunk, resamples - start)
        times_drawn = random.multinomial(count, np.full(count, 1 / count), size=draws)  # (draws, queries)
        found.append(WeightedCurve(scores, labels, times_drawn[:, queries]).choose(target))
    tail = (1 - confidence) / 2
    thresholds = np.concatenate(found)
    low, high = np.quantile(thresholds, [tail, 1 - tail], method="inverted_cdf")  # interpolating infinity gives NaN
    return Interval(float(min(low, 1.0)), float(min(high, 1.0)), float(np.isinf(thresholds).mean()))


def average_precision(scores: Array, labels: Array) -> float:
    """Return the area below the curve of precision over recall, as steps, in [0, 1]; at least one label is 1."""
    curve = WeightedCurve(scores, labels)
    return float((curve.precisions[0] * -np.diff(curve.recalls[0], append=0)).sum())


class WeightedCurve:
    """Precision, recall and F1 over all thresholds, for many weightings of the same pairs at once.

    scikit-learn's precision_recall_curve gives the same numbers for one weighting at a time; a test compares them.

    Args:
        scores: The relevance scores, (pairs,).
        labels: The labels, 0 or 1, (pairs,).
        weights: How often each pair counts, (weightings, pairs); by default one weighting in which each counts once.

    Attributes:
        candidates: The distinct scores, ascending, (candidates,).
        drawn: Whether a candidate belongs to a pair that counts, (weightings, candidates).
        precisions: The precision of accepting everything from a candidate on, (weightings, candidates).
        recalls: The recall of accepting the same, (weightings, candidates).
        f1s: The F1 of accepting the same, (weightings, candidates).
    """

    def __init__(self, scores: Array, labels: Array, weights: npt.NDArray[Any] | None = None) -> None:
        weights = np.ones((1, len(labels))) if weights is None else weights
        order = np.argsort(scores, kind="stable")
        self.candidates, first = np.unique(scores[order], return_index=True)
        weights = weights[:, order].astype(float)
        each = np.add.reduceat(weights, first, axis=1)
        relevant_each = np.add.reduceat(weights * labels[order], first, axis=1)
        accepted = np.cumsum(each[:, ::-1], axis=1)[:, ::-1]
        relevant = np.cumsum(relevant_each[:, ::-1], axis=1)[:, ::-1]
        positives = relevant[:, :1]
        self.drawn = each > 0
        self.precisions = relevant / np.maximum(accepted, 1)
        self.recalls = relevant / np.maximum(positives, 1)
        self.f1s = 2 * relevant / np.maximum(accepted + positives, 1)

    def choose(self, target: Target) -> Array:
        """Return the threshold of each weighting, (weightings,); infinity where the target cannot be reached."""
        if target.minimum is None:
            best = self.f1s.max(axis=1, keepdims=True)
            reached = self.drawn & (best > 0) & (self.f1s >= best - ROUNDING)
        else:
            values = self.precisions if target.measure == "precision" else self.recalls
            reached = self.drawn & (values >= target.minimum - ROUNDING)
        if target.measure == "precision":
            index = reached.argmax(axis=1)
        else:
            index = reached.shape[1] - 1 - reached[:, ::-1].argmax(axis=1)
        rows = np.arange(len(index))
        last_drawn = np.maximum.accumulate(np.where(self.drawn, np.arange(self.drawn.shape[1]), -1), axis=1)
        below = np.where(index > 0, last_drawn[rows, index - 1], -1)
        lowest_accepted = self.candidates[index]
        highest_rejected = np.where(below >= 0, self.candidates[below], lowest_accepted)
        halfway = (lowest_accepted + highest_rejected) / 2
        thresholds = np.where(halfway > highest_rejected, halfway, lowest_accepted)
        return np.where(reached[rows, index], thresholds, np.inf)
