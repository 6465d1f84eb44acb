"""Golden pairs: compare the live server's scores with those that the exporter measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lychee_client.manifest.manifest import GoldenInput, Manifest
from lychee_client.preprocessing.image import Image
from lychee_client.types import Input, combine


@dataclass(frozen=True, slots=True)
class GoldenPairResult:
    """One replayed pair.

    Attributes:
        expected: The score of the reference implementation.
        measured: The score of the live server; NaN where it gave none.
    """

    expected: float
    measured: float

    @property
    def abs_error(self) -> float:
        """The absolute difference of the two scores; infinite where the server gave none."""
        return math.inf if math.isnan(self.measured) else abs(self.measured - self.expected)


@dataclass(frozen=True, slots=True)
class GoldenReport:
    """The outcome of one replay.

    Attributes:
        pairs: The replayed pairs, in the manifest's order.
        tolerance: The largest absolute error that passes.
    """

    pairs: tuple[GoldenPairResult, ...]
    tolerance: float

    @property
    def max_abs_error(self) -> float:
        """The largest absolute error of a pair; 0 without pairs."""
        return max((pair.abs_error for pair in self.pairs), default=0.0)

    @property
    def passed(self) -> bool:
        """True if every pair is within the tolerance."""
        return self.max_abs_error <= self.tolerance

    @property
    def mismatch(self) -> str | None:
        """What is wrong, for people; None if every pair is within the tolerance."""
        if self.passed:
            return None
        wrong = sum(pair.abs_error > self.tolerance for pair in self.pairs)
        lost = sum(math.isnan(pair.measured) for pair in self.pairs)
        return (
            f"{wrong} of {len(self.pairs)} golden pairs do not match{f' ({lost} got no number)' if lost else ''}: the "
            f"largest error is {self.max_abs_error:.4f}, {self.tolerance:g} is allowed; another model is served than "
            "was exported, or with another precision. Run `lychee doctor`"
        )


def golden_inputs(manifest: Manifest) -> list[tuple[Input, Input]]:
    """Return query and document of every golden pair."""
    return [(_to_input(pair.query), _to_input(pair.document)) for pair in manifest.golden_pairs.pairs]


def golden_report(manifest: Manifest, measured: Sequence[float]) -> GoldenReport:
    """Compare measured scores, in the order of `golden_inputs`, with the manifest's."""
    pairs = zip(manifest.golden_pairs.pairs, measured, strict=True)
    return GoldenReport(
        tuple(GoldenPairResult(pair.relevance_score, score) for pair, score in pairs), manifest.accepted_error
    )


def _to_input(part: GoldenInput) -> Input:
    return combine(part.text, *([] if part.image_png is None else [Image.from_bytes(part.image_png)]))
