"""How much labelled pairs can prove: what refuses them, and what to doubt about a calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from lychee_client import InvalidInputError

from lychee_evaluate.calibration.pairs import Pair

MIN_PAIRS: Final = 20
MIN_PER_CLASS: Final = 5
MIN_QUERIES: Final = 5
ADVISED_PAIRS: Final = 50
ADVISED_QUERIES: Final = 20

Value: TypeAlias = str | int | float


@dataclass(frozen=True, slots=True)
class Doubt:
    """One thing that is wrong with the evidence.

    Attributes:
        kind: The kind of doubt, a key of MESSAGES: for programs, and for other languages.
        values: The values that the message names.
    """

    kind: str
    values: Mapping[str, Value]

    def __str__(self) -> str:
        return MESSAGES[self.kind].format(**self.values)


MESSAGES: Final[Mapping[str, str]] = {
    "too_few_pairs": "{pairs} usable pairs are too few; expected at least {minimum}, better {advised} or more: label "
    "more (`lychee sample` chooses them)",
    "too_few_of_label": "{count} of {pairs} usable pairs have the label {label}; expected at least {minimum} of each "
    "label: a threshold needs both relevant and irrelevant pairs",
    "too_few_queries": "the usable pairs have {queries} different queries; expected at least {minimum}, better "
    "{advised} or more: pairs of one query say little about others",
    "few_pairs": "the calibration rests on {pairs} pairs; {advised} or more are better",
    "few_queries": "the pairs have {queries} different queries; with fewer than {advised} the interval comes out too "
    "narrow",
    "few_accepted": "precision {precision:.3f} rests on {accepted} accepted pairs: it may be as low as "
    "{precision_low:.3f} (95 % Clopper-Pearson)",
    "unreachable": "in {share:.1%} of the resamples no threshold reached {target}; label more pairs with high scores",
    "wrong_order": "relevant pairs do not score higher than others; the model does not fit these pairs or labels",
    "isotonic": "an isotonic mapping of {pairs} pairs follows chance; with fewer than {advised}, platt is better",
    "unmeasured": "too few queries for each label: the mapping's calibration error could not be measured",
    "useless_mapping": "the mapping does not help: on pairs that it has not seen, the calibration error is {after:.3f} "
    "with it and {before:.3f} without",
    "truncated": "{texts} texts are longer than the model reads; their ends did not count",
}


def find_shortage(pairs: Sequence[Pair]) -> Doubt | None:
    """Return why no threshold can be found on these labelled pairs, or None if one can."""
    positives = sum(bool(pair.relevant) for pair in pairs)
    queries = len({pair.query_key for pair in pairs})
    if len(pairs) < MIN_PAIRS:
        return Doubt("too_few_pairs", {"pairs": len(pairs), "minimum": MIN_PAIRS, "advised": ADVISED_PAIRS})
    for label, count in ((1, positives), (0, len(pairs) - positives)):
        if count < MIN_PER_CLASS:
            values = {"count": count, "pairs": len(pairs), "label": label, "minimum": MIN_PER_CLASS}
            return Doubt("too_few_of_label", values)
    if queries < MIN_QUERIES:
        return Doubt("too_few_queries", {"queries": queries, "minimum": MIN_QUERIES, "advised": ADVISED_QUERIES})
    return None


def check_evidence(pairs: Sequence[Pair]) -> None:
    """Refuse what no threshold can be found on, before anything is scored.

    Raises:
        InvalidInputError: The pairs are too few or of too few queries, or one class has too few of them.
    """
    shortage = find_shortage(pairs)
    if shortage is not None:
        raise InvalidInputError(str(shortage))
