"""From a row of the input to the pairs in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from lychee_client.instructions.templates import text_problem
from lychee_client.types import Input, combine

from lychee_bulk.columns import Columns
from lychee_bulk.errors import RowError
from lychee_bulk.images import ImageReader
from lychee_bulk.reading import TEXT_SCHEMA

Row = Mapping[str, Any] | RowError
"""The values of a row by column, or what is wrong with all of it."""


@dataclass(frozen=True, slots=True)
class Side:
    """A query or a document before its images are read.

    Attributes:
        text: The text, or None.
        images: What names each image.
    """

    text: str | None
    images: tuple[object, ...]

    @property
    def key(self) -> tuple[object, ...]:
        """What equal ones have in common; the content of an image counts by its hash."""
        return (self.text, *(hashlib.sha256(one).digest() if isinstance(one, bytes) else one for one in self.images))

    async def read(self, images: ImageReader) -> Input:
        """Return what a client takes.

        Raises:
            RowError: An image cannot be read.
        """
        return combine(self.text, *[await images.read(one) for one in self.images])


@dataclass(frozen=True, slots=True)
class Pair:
    """One pair of a query and a document.

    Attributes:
        row: The position of its row in the table.
        index: The position of the document in its row.
        query: The query.
        document: The document.
        instruction: What makes a document relevant; None takes the run's.
    """

    row: int
    index: int
    query: Side
    document: Side
    instruction: str | None


def read_rows(table: pa.Table) -> list[Row]:
    """Return the rows of a table: of a dataset or a Parquet file, or lines of text."""
    if table.schema != TEXT_SCHEMA:
        return list(table.to_pylist())
    lines = zip(table["row"].to_pylist(), table["problem"].to_pylist(), strict=True)
    return [json.loads(row) if problem is None else RowError("bad_row", problem) for row, problem in lines]


def find_pairs(rows: list[Row], columns: Columns) -> tuple[list[Pair], dict[tuple[int, int], RowError]]:
    """Return the pairs of rows, and what is wrong with rows and documents, by row and index of the document."""
    pairs: list[Pair] = []
    errors: dict[tuple[int, int], RowError] = {}
    for number, row in enumerate(rows):
        if isinstance(row, RowError):
            errors[number, 0] = row
            continue
        try:
            query = _side(row, columns.query, columns.query_image, "query")
            instruction = _instruction(row, columns)
            documents = _documents(row, columns)
        except RowError as error:
            errors[number, 0] = error
            continue
        for index, document in enumerate(documents):
            if isinstance(document, RowError):
                errors[number, index] = document
            else:
                pairs.append(Pair(number, index, query, document, instruction))
    return pairs, errors


def name_rows(rows: list[Row], columns: Columns, prefix: str, start: int) -> list[str]:
    """Return the id of each row: what its column says, else file and position, "pairs.jsonl:17"."""
    ids = []
    for number, row in enumerate(rows, start):
        value = None if isinstance(row, RowError) or columns.id is None else row.get(columns.id)
        ids.append(f"{prefix}:{number}" if value is None else str(value))
    return ids


def keep(table: pa.Table, rows: list[Row], names: tuple[str, ...], order: list[int]) -> dict[str, pa.Array]:
    """Return chosen columns of the input, for the rows of the output.

    Args:
        table: The table of the rows.
        rows: The same rows, read.
        names: The columns. Those of Parquet keep their types; of lines they are texts, and JSON where it is none.
        order: The row of each row of the output.
    """
    if table.schema != TEXT_SCHEMA:
        taken = table.select(names).take(pa.array(order, pa.int64()))
        return {name: taken[name] for name in names}
    kept = {}
    for name in names:
        values = [None if isinstance(row, RowError) else _as_text(row.get(name)) for row in rows]
        kept[name] = pa.array([values[number] for number in order], pa.string())
    return kept


def _as_text(value: object) -> str | None:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")  # JSON may escape halves of characters
    return None if value is None else json.dumps(value, ensure_ascii=True)


def _side(row: Mapping[str, Any], text: str | None, image: str | None, what: str) -> Side:
    return _make_side(row.get(text) if text else None, row.get(image) if image else None, what)


def _make_side(text: object, image: object, what: str) -> Side:
    if text is not None and not isinstance(text, str):
        raise RowError("bad_value", f"the {what} is of type {type(text).__name__}; expected a text")
    if isinstance(text, str):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise RowError("bad_value", f"the {what} holds half of a character at {error.start}") from error
    images = [*image] if isinstance(image, (list, tuple)) else [image]
    named = tuple(bytes(one) if isinstance(one, bytearray) else one for one in images if one is not None and one != "")
    if (text is None or not text.strip()) and not named:
        raise RowError(f"no_{what}", f"the {what} is empty: there is neither a text nor an image")
    return Side(text if text and text.strip() else None, named)


def _documents(row: Mapping[str, Any], columns: Columns) -> list[Side | RowError]:
    if columns.documents is None:
        return [_side(row, columns.document, columns.document_image, "document")]
    listed = row.get(columns.documents)
    if isinstance(listed, str) and listed.lstrip().startswith("["):  # a cell of CSV
        try:
            listed = json.loads(listed)
        except ValueError as error:
            raise RowError("bad_value", f"the list of documents is no JSON: {error}") from error
    if not isinstance(listed, (list, tuple)):
        raise RowError("bad_value", f"the documents are of type {type(listed).__name__}; expected a list")
    if not listed:
        raise RowError("no_document", "the list of documents is empty")
    return [_one(value) for value in listed]


def _one(value: object) -> Side | RowError:
    try:
        if isinstance(value, Mapping):
            unknown = set(value) - {"text", "image"}
            if unknown:
                raise RowError("bad_value", f"a document has {sorted(unknown)[0]!r}; expected text, image or both")
            return _make_side(value.get("text"), value.get("image"), "document")
        if isinstance(value, (bytes, bytearray)):
            return _make_side(None, bytes(value), "document")
        return _make_side(value, None, "document")
    except RowError as error:
        return error


def _instruction(row: Mapping[str, Any], columns: Columns) -> str | None:
    value = row.get(columns.instruction) if columns.instruction else None
    if value is None or value == "":
        return None
    problem = text_problem(value) if isinstance(value, str) else f"is of type {type(value).__name__}; expected a text"
    if problem is not None:
        raise RowError("bad_instruction", f"the instruction {problem}")
    return str(value)
