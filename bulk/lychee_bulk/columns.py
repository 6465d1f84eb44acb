"""Which columns of the input hold queries and documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from lychee_evaluate.tables.column_names import match_columns

from lychee_bulk.errors import InputError

# What this package calls a column, and what the tables of lychee-rerank-evaluate do.
MEANINGS: Final[Mapping[str, str]] = {
    "query": "query",
    "query_image": "query_image",
    "document": "text",
    "document_image": "image",
    "documents": "documents",
    "instruction": "instruction",
}
EXPECTED: Final = (
    "expected query or query_image, and document, document_image or documents, or names that "
    "--column gives: --column query=NAME"
)


@dataclass(frozen=True, slots=True)
class Columns:
    """The names of the input's columns; None where there is none.

    Attributes:
        query: Texts of queries.
        query_image: Images of queries, one or a list.
        document: Texts of documents.
        document_image: Images of documents, one or a list.
        documents: Lists of documents: texts, or objects with `text`, `image` or both.
        instruction: An instruction for each row.
        id: What names a row in the output.
    """

    query: str | None = None
    query_image: str | None = None
    document: str | None = None
    document_image: str | None = None
    documents: str | None = None
    instruction: str | None = None
    id: str | None = None

    def check(self) -> None:
        """Accept columns that make pairs.

        Raises:
            InputError: There is no query, no document, or documents in two ways.
        """
        if self.query is None and self.query_image is None:
            raise InputError(f"the input has no column of queries; {EXPECTED}")
        single = self.document is not None or self.document_image is not None
        if not single and self.documents is None:
            raise InputError(f"the input has no column of documents; {EXPECTED}")
        if single and self.documents is not None:
            raise InputError(
                f"the input has documents twice, in {self.documents!r} and in "
                f"{self.document or self.document_image!r}; leave one out with "
                "--column document= or --column documents="
            )

    @property
    def used(self) -> tuple[str, ...]:
        """The columns that are read."""
        fields = (self.query, self.query_image, self.document, self.document_image, self.documents)
        return tuple(dict.fromkeys(name for name in (*fields, self.instruction, self.id) if name is not None))


def find_columns(
    names: Sequence[str], chosen: Mapping[str, str] | None = None, id_column: str | None = None
) -> Columns:
    """Find the columns by the names that people give them, in English and Chinese.

    Args:
        names: The columns of the input.
        chosen: The columns by what they hold, instead of what their names say; an empty name leaves one out.
        id_column: The column that names rows.

    Raises:
        InputError: A chosen column is not there, or the columns make no pairs.
    """
    matched = match_columns(names)
    found: dict[str, str] = {}
    for meaning, word in MEANINGS.items():
        at = next((name for name, match in zip(names, matched, strict=True) if match == word), None)
        if at is not None:
            found[meaning] = at
    for meaning, name in (chosen or {}).items():
        if meaning not in MEANINGS:
            raise InputError(f"--column names {meaning!r}; expected one of {', '.join(MEANINGS)}")
        if name:
            found[meaning] = name
        else:
            found.pop(meaning, None)
    if id_column is not None:
        found["id"] = id_column
    missing = [name for name in found.values() if name not in names]
    if missing:
        raise InputError(f"the input has no column {missing[0]!r}; it has {', '.join(map(repr, names))}")
    columns = Columns(**found)
    columns.check()
    return columns
