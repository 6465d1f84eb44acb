"""What the output holds of each pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa
from lychee_client.types import RerankResult

from lychee_bulk.errors import RowError

SCHEMA: Final = pa.schema(
    [
        ("id", pa.string()),
        ("index", pa.int32()),
        ("relevance_score", pa.float64()),
        ("logit", pa.float64()),
        ("decision", pa.string()),
        ("truncated", pa.bool_()),
        ("error", pa.string()),
        ("message", pa.string()),
        ("model_version", pa.int64()),
    ]
)
"""The columns of the output, before those that are kept of the input. Either score or error is null."""


@dataclass
class Results:
    """What has become of the pairs of a table, by row and index of the document.

    Attributes:
        scored: The pairs that have a score.
        errors: The rows and pairs that have none.
        warnings: What the client had to say, each once.
    """

    scored: dict[tuple[int, int], RerankResult] = field(default_factory=dict)
    errors: dict[tuple[int, int], RowError] = field(default_factory=dict)
    warnings: dict[str, None] = field(default_factory=dict)

    def to_table(self, ids: list[str], version: int | None) -> tuple[pa.Table, list[int]]:
        """Return the output in the order of the input, without the input's columns; and the row of each of its rows."""
        places = sorted([*self.scored, *self.errors])
        found = [self.scored.get(place) for place in places]
        failed = [self.errors.get(place) for place in places]
        columns: list[list[Any]] = [
            [ids[row] for row, _ in places],
            [index for _, index in places],
            [None if one is None else one.relevance_score for one in found],
            [None if one is None else one.logit for one in found],
            [None if one is None else one.decision for one in found],
            [None if one is None else one.truncated for one in found],
            [None if one is None else one.kind for one in failed],
            [None if one is None else _plain(one.message) for one in failed],
            [None if one is None else version for one in found],
        ]
        arrays = [pa.array(values, kind) for values, kind in zip(columns, SCHEMA.types, strict=True)]
        return pa.table(arrays, schema=SCHEMA), [row for row, _ in places]

    def tally(self, rows: int) -> Tally:
        """Count them."""
        return Tally(rows, len(self.scored), Counter(one.kind for one in self.errors.values()), tuple(self.warnings))


@dataclass(frozen=True)
class Tally:
    """Counts of a unit or of a run.

    Attributes:
        rows: How many rows of the input.
        scored: How many pairs have a score.
        errors: How many have none, by kind of error.
        warnings: What the client had to say, each once.
    """

    rows: int = 0
    scored: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def failed(self) -> int:
        """How many pairs have no score."""
        return sum(self.errors.values())

    def __add__(self, other: Tally) -> Tally:
        errors = Counter(self.errors) + Counter(other.errors)
        warnings = tuple(dict.fromkeys((*self.warnings, *other.warnings)))
        return Tally(self.rows + other.rows, self.scored + other.scored, errors, warnings)

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON has them."""
        errors = dict(sorted(self.errors.items(), key=lambda item: (-item[1], item[0])))
        return {"rows": self.rows, "scored": self.scored, "errors": errors, "warnings": list(self.warnings)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Tally:
        """Return what `to_json` returned."""
        return cls(value["rows"], value["scored"], value["errors"], tuple(value["warnings"]))


def _plain(message: str) -> str:
    """Return a message without halves of characters, which it may quote."""
    return message.encode("utf-8", "replace").decode("utf-8")
