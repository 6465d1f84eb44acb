"""Pairs of a query and a document as people list and label them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePath
from typing import Any, Final, TypeAlias

from lychee_client import ConfigurationError
from lychee_client.preprocessing.image import Image
from lychee_client.types import ImageText, Input

from lychee_evaluate.calibration.pair_cells import expand, take_label, take_score, take_text
from lychee_evaluate.tables.message import Message, RowError, TableError
from lychee_evaluate.tables.reading import read_table, read_table_file
from lychee_evaluate.tables.table import Table

COLUMNS: Final = ("query", "query_image", "text", "image", "instruction", "relevant")
_SHOWN_ROWS: Final = 5
_SHOWN_CHARACTERS: Final = 500
# Takes what a cell says about an image; returns the file, or raises RowError.
FindFile: TypeAlias = Callable[[str], Path]


@dataclass(frozen=True, slots=True)
class Pair:
    """One query with one document; each has a text, an image, or both.

    Attributes:
        row: The number of its row in the file.
        query: The text of the query, or None.
        query_image: The image file of the query, or None.
        text: The text of the document, or None.
        image: The image file of the document, or None.
        instruction: What the row says about the instruction, or None.
        relevant: The label, or None if the row has none.
        relevance_score: What an earlier run gave it, in [0, 1]; None without one. See `take_scores`.
    """

    row: int
    query: str | None
    query_image: Path | None
    text: str | None
    image: Path | None
    instruction: str | None = None
    relevant: bool | None = None
    relevance_score: float | None = None

    @property
    def query_key(self) -> tuple[str | None, Path | None]:
        """A value that is equal for pairs of the same query."""
        return self.query, self.query_image

    @property
    def key(self) -> tuple[object, ...]:
        """A value that is equal for pairs of the same query and document."""
        return *self.query_key, self.text, self.image

    @property
    def query_input(self) -> Input:
        """The query as the client takes it."""
        return _to_input(self.query, self.query_image)

    @property
    def document_input(self) -> Input:
        """The document as the client takes it."""
        return _to_input(self.text, self.image)


@dataclass(frozen=True, slots=True)
class SkippedRow:
    """One row that does not count.

    Attributes:
        row: The number of the row in its file.
        message: Why it does not count.
    """

    row: int
    message: Message

    @property
    def reason(self) -> str:
        """Why it does not count, in English."""
        return str(self.message)

    def to_json(self) -> dict[str, Any]:
        """Return the row and the reason, in English and by kind, values and language."""
        return {"row": self.row, "reason": self.reason, **self.message.to_json()}


@dataclass(frozen=True, slots=True)
class PairSheet:
    """What a file holds.

    Attributes:
        pairs: The pairs, in the order of the file, without duplicates.
        skipped: The rows that do not count, in the order of the file.
        notes: What was found out about the file.
    """

    pairs: tuple[Pair, ...]
    skipped: tuple[SkippedRow, ...]
    notes: tuple[Message, ...] = ()


def read_pairs(path: Path, *, labelled: bool, encoding: str | None = None) -> PairSheet:
    """Read pairs from any table that `read_table` reads.

    Columns: query and/or query_image, text and/or image, relevant (yes or no), instruction, under any of the names that
    `column_names.NAMES` has; others are ignored. Images are paths relative to the file. In JSON lines one row may hold
    several documents, as a list `documents` of texts or of objects with the keys text, image and relevant. A row that
    cannot be used costs only itself. Of equal pairs the first one counts; if their labels contradict each other, none
    does.

    Args:
        path: The file.
        labelled: Whether only rows with a label count. Otherwise a label may be missing.
        encoding: See `read_table`.

    Raises:
        ConfigurationError: The file cannot be read, or a column is missing.
    """
    return _collect(path, read_table_file(path, encoding=encoding), partial(_find_beside, path.parent), labelled)


def parse_pairs(name: PurePath, data: bytes, *, find_file: FindFile, labelled: bool, limit: int) -> PairSheet:
    """Do what `read_pairs` does with a file's content, for content that must not name files of this machine.

    Args:
        name: The name of the file. Its suffix says what the content is, and messages name it; nothing of that name is
            opened.
        data: The content of the file.
        find_file: Finds the file that a `query_image` or `image` stands for.
        labelled: See `read_pairs`.
        limit: The most rows; each document of a row counts on its own.

    Raises:
        ConfigurationError: See `read_pairs`; or there are more than `limit` rows.
    """
    return _collect(name, read_table(str(name), data, max_rows=limit), find_file, labelled, limit)


def _collect(name: PurePath, table: Table, find_file: FindFile, labelled: bool, limit: int | None = None) -> PairSheet:
    try:
        _check_columns(table, labelled)
        pairs, skipped = _read_rows(table, find_file, labelled, limit)
    except TableError as error:
        error.file = str(name)
        raise
    unique, duplicates = _drop_duplicates(pairs)
    ordered = sorted([*skipped, *duplicates], key=lambda skip: skip.row)
    return PairSheet(tuple(unique), tuple(ordered), table.notes)


def _read_rows(
    table: Table, find_file: FindFile, labelled: bool, limit: int | None
) -> tuple[list[Pair], list[SkippedRow]]:
    pairs: list[Pair] = []
    skipped: list[SkippedRow] = []
    for row in table.rows:
        if row.problem is not None:
            skipped.append(SkippedRow(row.number, row.problem))
            continue
        for cells in expand(table.take(row)):
            if limit is not None and len(pairs) + len(skipped) >= limit:
                raise TableError("too_many_rows", limit=limit)
            try:
                pair = _parse_pair(row.number, cells, find_file, table.decimal_comma)
                if labelled and pair.relevant is None:
                    raise RowError("no_label")
            except RowError as error:
                skipped.append(SkippedRow(row.number, error.message))
            else:
                pairs.append(pair)
    return pairs, skipped


def select_instruction(
    pairs: Sequence[Pair], instruction: str | None
) -> tuple[list[Pair], list[SkippedRow], str | None]:
    """Keep the pairs of one instruction, because a threshold holds for one instruction only.

    Args:
        pairs: All pairs.
        instruction: The wanted instruction: pairs without an instruction take it, and pairs with another one are left
            out. None means that all pairs must agree.

    Returns:
        The pairs to use, what was left out, and the instruction (None for the model's default).

    Raises:
        ConfigurationError: The pairs have several instructions and none is wanted.
    """
    if instruction is None:
        rows: dict[str | None, list[int]] = {}
        for pair in pairs:
            rows.setdefault(pair.instruction, []).append(pair.row)
        if len(rows) > 1:
            found = "; ".join(
                f"{'none' if name is None else repr(name)} in rows {list_rows(numbers)}"
                for name, numbers in rows.items()
            )
            raise ConfigurationError(
                f"the pairs have {len(rows)} different instructions ({found}), and a threshold holds for one "
                "instruction only: calibrate each on its own with --instruction TEXT, which takes the rows with this "
                "instruction and those without one"
            )
        return list(pairs), [], next(iter(rows), None)
    kept: list[Pair] = []
    skipped: list[SkippedRow] = []
    for pair in pairs:
        if pair.instruction in (None, instruction):
            kept.append(replace(pair, instruction=instruction))
        else:
            other = Message("other_instruction", {"instruction": pair.instruction})
            skipped.append(SkippedRow(pair.row, other))
    unique, duplicates = _drop_duplicates(kept)  # a row without the instruction may equal one with it
    return unique, [*skipped, *duplicates], instruction


def hash_pairs(pairs: Iterable[Pair]) -> str:
    """Return the SHA-256 of queries, documents and labels, 64 hex digits.

    Images count by their content, so order, file names and file format make no difference.

    Raises:
        ConfigurationError: An image cannot be read.
    """
    hashes: dict[Path, str] = {}
    records = sorted(
        json.dumps(
            [pair.query, _hash_file(pair.query_image, hashes), pair.text, _hash_file(pair.image, hashes), pair.relevant]
        )
        for pair in pairs
    )
    return hashlib.sha256("\n".join(records).encode("ascii")).hexdigest()


def group_skipped(skipped: Iterable[SkippedRow]) -> dict[str, list[int]]:
    """Return the rows that do not count by the reason why, in the order of the rows."""
    rows: dict[str, list[int]] = {}
    for skip in skipped:
        rows.setdefault(skip.reason, []).append(skip.row)
    return rows


def list_rows(rows: Sequence[int]) -> str:
    """Return the first few of row numbers for a message."""
    shown = ", ".join(str(row) for row in rows[:_SHOWN_ROWS])
    return shown if len(rows) <= _SHOWN_ROWS else f"{shown} and {len(rows) - _SHOWN_ROWS} more"


def _check_columns(table: Table, labelled: bool) -> None:
    required = [("query", "query_image"), ("text", "image")] + [("relevant",)] * labelled
    for names in required:
        # A list of documents brings columns of its own.
        if table.columns and not table.meanings & {*names, *(() if names == required[0] else ("documents",))}:
            found = ", ".join(sorted(column.name for column in table.columns))
            raise TableError(
                "no_column", wanted=" or ".join(names), found=found[:_SHOWN_CHARACTERS], expected=", ".join(COLUMNS)
            )


def _parse_pair(number: int, cells: dict[str, Any], find_file: FindFile, decimal_comma: bool) -> Pair:
    query, text = take_text(cells, "query"), take_text(cells, "text")
    query_image, image = (
        find_file(name) if name else None for name in (take_text(cells, "query_image"), take_text(cells, "image"))
    )
    if query is None and query_image is None:
        raise RowError("no_query")
    if text is None and image is None:
        raise RowError("no_document")
    score = take_score(cells, decimal_comma=decimal_comma)
    label, instruction = take_label(cells), take_text(cells, "instruction")
    return Pair(number, query, query_image, text, image, instruction, label, score)


def _find_beside(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / name.replace("\\", "/")):  # the latter as Windows writes paths
        with suppress(OSError, ValueError):  # a name that is too long, or with a NUL
            if path.is_file():
                return path
    raise RowError("no_image_file", image=name, folder=str(folder))


def _drop_duplicates(pairs: Sequence[Pair]) -> tuple[list[Pair], list[SkippedRow]]:
    groups: dict[tuple[object, ...], list[Pair]] = {}
    for pair in pairs:
        # The same pair under two instructions is two questions.
        groups.setdefault((*pair.key, pair.instruction), []).append(pair)
    unique: list[Pair] = []
    skipped: list[SkippedRow] = []
    for first, *others in groups.values():
        labels = {pair.relevant for pair in (first, *others) if pair.relevant is not None}
        if len(labels) > 1:
            rows = list_rows([pair.row for pair in (first, *others)])
            message = Message("contradiction", {"rows": rows})
            skipped += [SkippedRow(pair.row, message) for pair in (first, *others)]
            continue
        unique.append(replace(first, relevant=next(iter(labels), None)))
        skipped += [SkippedRow(pair.row, Message("same_pair", {"row": first.row})) for pair in others]
    return unique, skipped


def _to_input(text: str | None, image: Path | None) -> Input:
    if image is None:
        return text or ""
    return Image.from_path(image) if text is None else ImageText(Image.from_path(image), text)


def _hash_file(path: Path | None, known: dict[Path, str]) -> str | None:
    if path is None:
        return None
    if path not in known:
        try:
            known[path] = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}; check the path") from error
    return known[path]
