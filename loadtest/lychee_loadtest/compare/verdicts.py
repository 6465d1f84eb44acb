"""Ratios over rounds, their targets, and the check that all contestants rank alike."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np

from lychee_loadtest.execution import precision_of

from .callers import Scores

__all__ = [
    "BETTER_TORCH_TARGET",
    "FLOAT32",
    "SESSION_TARGETS",
    "TARGETS",
    "TORCH",
    "Agreement",
    "Precision",
    "Ratio",
    "compare_rounds",
    "compare_scores",
    "format_table",
    "precisions_of",
    "tolerance_of",
]

Precision: TypeAlias = Literal["fp32", "bf16", "rounded"]
"""What scores are computed in; "rounded": from weights, or activations too, that the export rounded."""

TARGETS: Final[Mapping[str, float | None]] = {
    "fastapi": None,
    "fastapi-bf16": None,
    "infinity": 2.0,
    "pytriton": 2.0,
}
"""Least throughput of this project's SDK as a multiple of each; None: the ratio only explains."""

TORCH: Final = ("fastapi", "fastapi-bf16")
SESSION_TARGETS: Final[Mapping[Precision, float]] = {"fp32": 0.95, "bf16": 0.95, "rounded": 0.9}
"""The same for the exported files without a server, by what they compute in: rounded ones leave serving less time."""

BETTER_TORCH_TARGET: Final = 1.5
"""Least throughput of this project's SDK as a multiple of that of TORCH which is faster with the workload."""

FLOAT32: Final[Mapping[str, Precision]] = {"texts": "fp32", "photos": "fp32"}

_TOLERANCES: Final[Mapping[Precision, float]] = {"fp32": 0.01, "bf16": 0.1, "rounded": 1.0}
"""Largest difference from torch in float32, in standard deviations of its scores.

bf16: twice the largest of 48 comparisons, 0.048. bfloat16 keeps 8 bits of a number, in whose last place every layer
errs; torch with bfloat16 weights gave 0.012 to 0.048, with autocast 0.011 to 0.033, OpenVINO 0.014 to 0.042 (8 queries
each with 50 texts and 12 photos). What computes something else lies above: texts cut at 20 tokens 0.90, a layer left
out 0.63, positions off by one 1.4, swapped colours 0.56, another normalization of pixels 0.28. Another GELU (0.03) and
another interpolation of pixels (0.03) hide in bfloat16; the same files executed in float32, at 0.01, would show them.
rounded: 8 or 4 bits; documents further apart than that still have to come in torch's order.
"""

_LEAST_SPREAD: Final = 10.0


@dataclass(frozen=True)
class Ratio:
    """One quotient, with its spread over the rounds.

    Attributes:
        name: The name that it has in tables and JSON.
        median: The median over the rounds of the quotients within a round.
        lowest: The lowest quotient of the rounds.
        highest: The highest quotient of the rounds.
        target: What the median is compared with; None where a quotient only explains.
        at_least: Whether the target is the least that the median may be, or the most.
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
        error: The largest difference, as a multiple of the standard deviation of the reference's scores.
        correlation: Pearson's correlation of the two lists of scores.
        same_order: Whether the order is the same, but for documents that the tolerance cannot tell apart.
    """

    error: float
    correlation: float
    same_order: bool

    def is_within(self, tolerance: float) -> bool:
        """Whether a contestant may be timed."""
        return self.same_order and self.error <= tolerance


def precisions_of(export: str, executions: Mapping[str, str]) -> dict[str, Precision]:
    """Return in which precision an exported dual encoder computes "texts" and "photos".

    Photos are scored with an embedding of the query, a text: the coarser of the two encoders counts.

    Args:
        export: The precision of the files, as `lychee export --precision` takes it.
        executions: What executes each encoder, by the encoder's name.
    """
    if export != "fp32":
        return dict.fromkeys(FLOAT32, "rounded")
    text = precision_of(executions["text_encoder"])
    return {"texts": text, "photos": "bf16" if text == "bf16" else precision_of(executions["vision_encoder"])}


def tolerance_of(precision: Precision) -> float:
    """Return how far scores may be from those of torch in float32, in standard deviations of the latter."""
    return _TOLERANCES[precision]


def compare_scores(reference: Scores, scores: Scores, tolerance: float) -> Agreement:
    """Compare up to a scale and an offset: some give cosines, others what a head makes of them.

    Args:
        reference: float64, (documents,), the scores of torch.
        scores: float64, (documents,), another contestant's scores of the same documents.
        tolerance: The share of the reference's standard deviation by which documents must differ to have an order.

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
