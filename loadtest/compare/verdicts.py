"""Ratios over rounds, their targets, and the check that all contestants rank alike."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from .callers import Scores

__all__ = ["TARGETS", "Agreement", "Ratio", "compare_rounds", "compare_scores", "format_table"]

TARGETS: Final = {"fastapi": 2.5, "infinity": 2.0, "pytriton": 2.0, "session": 0.85}
"""Least throughput of this project's SDK as a multiple of each."""

_LEAST_SPREAD: Final = 10.0


@dataclass(frozen=True)
class Ratio:
    """One quotient, with its spread over the rounds.

    Attributes:
        name: In tables and JSON.
        median: Over rounds, of the quotients within a round.
        lowest: Of the rounds.
        highest: Of the rounds.
        target: None where a quotient only explains.
        at_least: Whether the target is the least or the most.
    """

    name: str
    median: float
    lowest: float
    highest: float
    target: float | None = None
    at_least: bool = True

    @property
    def met(self) -> bool | None:
        """Whether the target is met by the median; None without a target."""
        if self.target is None:
            return None
        return self.median >= self.target if self.at_least else self.median <= self.target


def compare_rounds(
    name: str, ours: Sequence[float], theirs: Sequence[float], target: float | None = None, *, at_least: bool = True
) -> Ratio:
    """Divide round by round.

    Raises:
        ValueError: The numbers of rounds differ, or there are none.
    """
    if not ours or len(ours) != len(theirs):
        raise ValueError(f"{name}: {len(ours)} and {len(theirs)} rounds; expected the same number, at least one")
    quotients = [one / other for one, other in zip(ours, theirs, strict=True)]
    return Ratio(name, statistics.median(quotients), min(quotients), max(quotients), target, at_least)


@dataclass(frozen=True)
class Agreement:
    """How well a contestant's scores agree with the reference's.

    Attributes:
        error: Largest difference, as a multiple of the standard deviation of the reference's scores.
        correlation: Pearson's.
        same_order: Whether the order is the same, but for documents that the tolerance cannot tell apart.
    """

    error: float
    correlation: float
    same_order: bool

    def is_within(self, tolerance: float) -> bool:
        """Whether a contestant may be timed."""
        return self.same_order and self.error <= tolerance


def compare_scores(reference: Scores, scores: Scores, tolerance: float) -> Agreement:
    """Compare up to a scale and an offset: some give cosines, others what a head makes of them.

    Args:
        reference: float64, (documents,), of torch.
        scores: The same of another contestant.
        tolerance: Share of the reference's standard deviation by which documents must differ to have an order.

    Raises:
        ValueError: The reference tells too few documents apart for the comparison to mean something.
    """
    spread = float(reference.std())
    noise = float(np.finfo(np.float32).eps) * max(1.0, float(np.abs(reference).max()))
    if spread < _LEAST_SPREAD * noise:
        raise ValueError(f"the reference's scores have a standard deviation of {spread:g}; expected different scores")
    if len(scores) != len(reference) or not np.isfinite(scores).all():
        return Agreement(float("inf"), 0.0, False)
    design = np.stack([scores, np.ones_like(scores)], axis=1)
    (slope, offset), *_ = np.linalg.lstsq(design, reference, rcond=None)
    fitted = slope * scores + offset
    error = float(np.abs(fitted - reference).max()) / spread
    correlation = float(np.corrcoef(reference, scores)[0, 1])
    ordered = reference[np.argsort(-scores, kind="stable")]
    falls = np.maximum.accumulate(ordered[::-1])[::-1] - ordered  # how far a better document stands behind each
    return Agreement(error, correlation, bool(slope > 0 and falls.max() <= 2 * tolerance * spread))


def format_table(ratios: Sequence[Ratio]) -> list[str]:
    """Return the lines of a Markdown table: ratio, spread over rounds, target, verdict."""
    lines = ["| ratio | median | lowest to highest round | target |", "|---|---|---|---|"]
    for ratio in ratios:
        verdict = ""
        if ratio.target is not None:
            direction = "at least" if ratio.at_least else "at most"
            verdict = f"{direction} {ratio.target:g}, {'met' if ratio.met else 'missed'}"
        lines.append(f"| {ratio.name} | {ratio.median:.2f} | {ratio.lowest:.2f} to {ratio.highest:.2f} | {verdict} |")
    return lines
