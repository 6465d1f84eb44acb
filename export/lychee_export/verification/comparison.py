"""The scores of every golden pair side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lychee_client import GoldenReport, Manifest
from lychee_client.manifest import GoldenInput

__all__ = ["Comparison", "PairComparison", "compare"]

_LONGEST_TEXT = 40


@dataclass(frozen=True)
class PairComparison:
    """One golden pair.

    Args:
        query: The query in words: its text, shortened, and whether it has an image.
        document: The document in words, as the query.
        manifest: The score that the reference gave when the model was exported.
        measured: The score that what is checked gives.
        reference: The score that the reference implementation gives now; None if it was not asked for.
    """

    query: str
    document: str
    manifest: float
    measured: float
    reference: float | None

    @property
    def difference(self) -> float:
        """The largest difference between two of the scores."""
        scores = [self.manifest, self.measured, *([] if self.reference is None else [self.reference])]
        return max(scores) - min(scores)


@dataclass(frozen=True)
class Comparison:
    """All golden pairs of a manifest.

    Args:
        pairs: The golden pairs, in the manifest's order.
        tolerance: The largest accepted difference.
    """

    pairs: tuple[PairComparison, ...]
    tolerance: float

    @property
    def max_difference(self) -> float:
        """The largest difference of any pair."""
        return max((pair.difference for pair in self.pairs), default=0.0)

    @property
    def passed(self) -> bool:
        """Whether there are pairs, and all of them are within the tolerance."""
        return bool(self.pairs) and self.max_difference <= self.tolerance

    def is_ok(self, pair: PairComparison) -> bool:
        """Whether a pair is within the tolerance."""
        return pair.difference <= self.tolerance


def compare(manifest: Manifest, report: GoldenReport, reference: Sequence[float] | None = None) -> Comparison:
    """Put the scores of a replay beside the manifest's and the reference's.

    Args:
        manifest: The manifest, which holds the pairs.
        report: The report of the replay, in the manifest's order.
        reference: The fresh scores of the reference implementation in the same order, or None.
    """
    fresh: Sequence[float | None] = [None] * len(report.pairs) if reference is None else reference
    pairs = [
        PairComparison(_describe(pair.query), _describe(pair.document), result.expected, result.measured, score)
        for pair, result, score in zip(manifest.golden_pairs.pairs, report.pairs, fresh, strict=True)
    ]
    return Comparison(tuple(pairs), report.tolerance)


def _describe(part: GoldenInput) -> str:
    text = part.text
    words = [] if text is None else [text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 3]}..."]
    if part.image_png is not None:
        words.append("[image]")
    return " ".join(words)
