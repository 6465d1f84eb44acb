"""From labelled, scored pairs to a calibration, with the figures that say how far to trust it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any, Final

import numpy as np
from lychee_client import ConfigurationError, InvalidInputError
from lychee_client.calibration import Calibration
from lychee_client.score_mapping import Array, IsotonicMapping, PlattMapping

from lychee_evaluate.calibration.evidence import ADVISED_PAIRS, ADVISED_QUERIES, Doubt, check_evidence
from lychee_evaluate.calibration.mapping_fit import MappingKind, fit_mapping
from lychee_evaluate.calibration.pair_scores import PairScores
from lychee_evaluate.calibration.pairs import hash_pairs
from lychee_evaluate.calibration.plot import draw_calibration
from lychee_evaluate.calibration.reliability import Reliability, measure_reliability
from lychee_evaluate.calibration.threshold_search import Target, average_precision, bootstrap_interval, choose_threshold

CONFIDENCE: Final = 0.95
DEFAULT_RESAMPLES: Final = 1000
MIN_RESAMPLES: Final = 100
MAX_RESAMPLES: Final = 100_000
BISECTIONS: Final = 60
ADVISED_ACCEPTED: Final = 30
ADVISED_ISOTONIC_PAIRS: Final = 200
TABLE_THRESHOLDS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.7, 0.75, 0.8, 0.9)


@dataclass(frozen=True, slots=True)
class ThresholdRow:
    """What one threshold does to the labelled pairs.

    Attributes:
        threshold: The threshold on the relevance score, inclusive.
        accepted: How many pairs are accepted: those with a score from the threshold on.
        precision: The share of accepted pairs that is relevant; None if nothing is accepted.
        recall: The share of relevant pairs that is accepted, in [0, 1].
        f1: The harmonic mean of precision and recall, in [0, 1].
    """

    threshold: float
    accepted: int
    precision: float | None
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """A calibration and how far to trust it.

    Attributes:
        calibration: The calibration, to be saved.
        table: What round thresholds and the chosen one do, in ascending order.
        average_precision: The area below the precision-recall curve, in [0, 1].
        reliability: The calibration errors before and after the mapping.
        accepted: How many labelled pairs have a score from the threshold on.
        precision_low: The lower end of the precision's exact 95 % interval (Clopper and Pearson), which takes pairs as
            independent.
        unreachable: The share of the bootstrap's resamples in which no threshold reached the target.
        pairs_for_half_width: About how many labelled pairs an interval half as wide would need.
        doubts: What is wrong with the evidence.
        notes: What the client had to say about the calls.
    """

    calibration: Calibration
    table: tuple[ThresholdRow, ...]
    average_precision: float
    reliability: Reliability
    accepted: int
    precision_low: float
    unreachable: float
    pairs_for_half_width: int
    doubts: tuple[Doubt, ...]
    notes: tuple[str, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Notes and doubts, for people."""
        return (*self.notes, *(str(doubt) for doubt in self.doubts))

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        return {
            "calibration": self.calibration.to_json(),
            "table": [asdict(row) for row in self.table],
            "average_precision": self.average_precision,
            "reliability": {
                "expected_calibration_error_before": self.reliability.before,
                "expected_calibration_error_after": self.reliability.after,
                "expected_calibration_error_by_chance": self.reliability.chance,
            },
            "accepted": self.accepted,
            "precision_low": self.precision_low,
            "unreachable": self.unreachable,
            "pairs_for_half_width": self.pairs_for_half_width,
            "warnings": list(self.warnings),
        }


def make_report(
    scored: PairScores,
    target: Target,
    *,
    mapping: MappingKind = "platt",
    review_band: bool = False,
    resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
) -> CalibrationReport:
    """Find the threshold for a target and everything that a calibration file records.

    Args:
        scored: The labelled pairs with their scores.
        target: What the threshold is to reach.
        mapping: How scores become probabilities.
        review_band: Whether what lies between the interval's lower end and the threshold is marked for review.
        resamples: How many resamples the bootstrap draws, from MIN_RESAMPLES to MAX_RESAMPLES.
        seed: The seed of every random choice; the same seed gives the same report.

    Raises:
        ConfigurationError: An option cannot be used.
        InvalidInputError: The pairs are too few or of one class only, or no threshold reaches the target.
    """
    check_resamples(resamples)
    scores, logits, queries = scored.scores, scored.logits, scored.queries
    labels = _labels(scored)
    check_evidence(scored.pairs)
    if scored.model is None or not (np.isfinite(scores).all() and np.isfinite(logits).all()):
        raise InvalidInputError("the pairs have no model, or scores that are not finite; score them again")
    choice = choose_threshold(scores, labels, target)
    interval = bootstrap_interval(
        scores, labels, queries, target, resamples=resamples, confidence=CONFIDENCE, seed=seed
    )
    calibration = Calibration(
        created_at=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        client_version=version("lychee-rerank-client"),
        model=scored.model,
        instruction=scored.instruction,
        target=str(target),
        threshold=choice.threshold,
        threshold_low=interval.low,
        threshold_high=interval.high,
        confidence=CONFIDENCE,
        review_threshold=min(interval.low, choice.threshold) if review_band else choice.threshold,
        precision=choice.precision,
        recall=choice.recall,
        f1=choice.f1,
        pairs=len(labels),
        positives=int(labels.sum()),
        queries=int(queries.max()) + 1,
        mapping=fit_mapping(mapping, logits, labels),
        data_sha256=hash_pairs(scored.pairs),
    )
    accepted = int((scores >= choice.threshold).sum())
    report = CalibrationReport(
        calibration,
        _tabulate(scores, labels, choice.threshold),
        average_precision(scores, labels),
        measure_reliability(mapping, scores, logits, labels, queries, seed),
        accepted,
        _lower_bound(round(choice.precision * accepted), accepted),
        interval.unreachable,
        # An interval narrows with the square root of the evidence; a best point, which has no slope to go by, only
        # with the cube root (Kim and Pollard, Cube root asymptotics, 1990).
        len(labels) * (8 if target.minimum is None else 4),
        (),
        scored.warnings,
    )
    return replace(report, doubts=_find_doubts(report, len(scored.truncated)))


def draw_report(report: CalibrationReport, scored: PairScores) -> bytes:
    """Draw a report as a PNG; see `draw_calibration`.

    Args:
        report: The report that was made from these pairs.
        scored: The pairs and scores that it was made from.
    """
    return draw_calibration(report.calibration, scored.scores, _labels(scored), report.average_precision)


def check_resamples(resamples: int) -> None:
    """Accept a useful number of resamples.

    Raises:
        ConfigurationError: The number is too small for the ends of an interval, or too large to wait for.
    """
    if not MIN_RESAMPLES <= resamples <= MAX_RESAMPLES:
        raise ConfigurationError(f"bootstrap is {resamples}; expected a number from {MIN_RESAMPLES} to {MAX_RESAMPLES}")


def _labels(scored: PairScores) -> Array:
    return np.array([bool(pair.relevant) for pair in scored.pairs], float)


def _tabulate(scores: Array, labels: Array, chosen: float) -> tuple[ThresholdRow, ...]:
    rows = []
    positives = int(labels.sum())
    for threshold in sorted({*TABLE_THRESHOLDS, chosen}):
        decisions = scores >= threshold
        accepted, relevant = int(decisions.sum()), int(labels[decisions].sum())
        precision = relevant / accepted if accepted else None
        f1 = 2 * relevant / (accepted + positives)
        rows.append(ThresholdRow(threshold, accepted, precision, relevant / positives, f1))
    return tuple(rows)


def _lower_bound(relevant: int, accepted: int) -> float:
    """Return the lower end of a share's exact interval: were the share less, so many would be unlikely.

    Source: Clopper and Pearson, The Use of Confidence or Fiducial Limits, 1934.
    """
    found = np.arange(relevant, accepted + 1)
    ways = np.array([-math.lgamma(count + 1) - math.lgamma(accepted - count + 1) for count in found])
    ways += math.lgamma(accepted + 1)
    low, high = 0.0, relevant / accepted
    for _ in range(BISECTIONS):
        share = (low + high) / 2
        if share in (low, high) or share == 0:
            break
        tail = np.exp(ways + found * np.log(share) + (accepted - found) * np.log1p(-share)).sum()
        low, high = (low, share) if tail > (1 - CONFIDENCE) / 2 else (share, high)
    return low


def _find_doubts(report: CalibrationReport, truncated: int) -> tuple[Doubt, ...]:
    """Return what to doubt about a report.

    Args:
        report: The report, complete but for its doubts.
        truncated: How many texts were longer than the model reads.
    """
    calibration, reliability, mapping = report.calibration, report.reliability, report.calibration.mapping
    after = reliability.after
    candidates = (
        (
            calibration.pairs < ADVISED_PAIRS,
            Doubt("few_pairs", {"pairs": calibration.pairs, "advised": ADVISED_PAIRS}),
        ),
        (
            calibration.queries < ADVISED_QUERIES,
            Doubt("few_queries", {"queries": calibration.queries, "advised": ADVISED_QUERIES}),
        ),
        (
            report.accepted < ADVISED_ACCEPTED,
            Doubt(
                "few_accepted",
                {
                    "precision": calibration.precision,
                    "accepted": report.accepted,
                    "precision_low": report.precision_low,
                },
            ),
        ),
        (
            report.unreachable > 0,
            Doubt("unreachable", {"share": report.unreachable, "target": calibration.target}),
        ),
        (isinstance(mapping, PlattMapping) and mapping.slope <= 0, Doubt("wrong_order", {})),
        (
            isinstance(mapping, IsotonicMapping) and calibration.pairs < ADVISED_ISOTONIC_PAIRS,
            Doubt("isotonic", {"pairs": calibration.pairs, "advised": ADVISED_ISOTONIC_PAIRS}),
        ),
        (after is None, Doubt("unmeasured", {})),
        (
            after is not None and after > reliability.before,
            Doubt("useless_mapping", {"after": after or 0.0, "before": reliability.before}),
        ),
        (truncated > 0, Doubt("truncated", {"texts": truncated})),
    )
    return tuple(doubt for holds, doubt in candidates if holds)
