"""Pairs of a query and a document as people list and label them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePath
from typing import Any, Final, TypeAlias

from lychee_client import ConfigurationError, InvalidInputError
from lychee_client.preprocessing.image import Image
from lychee_client.types import ImageText, Input

from lychee_evaluate.calibration.sheet import Row, parse_sheet, read_sheet

COLUMNS: Final = ("query", "query_image", "text", "image", "instruction", "relevant")
_LABELS: Final = {"0": False, "1": True}
_SHOWN_ROWS: Final = 5
# Takes what a cell says about an image; returns the file, or raises InvalidInputError.
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
        reason: Why it does not count, for people.
    """

    row: int
    reason: str


@dataclass(frozen=True, slots=True)
class PairSheet:
    """What a file holds.

    Attributes:
        pairs: The pairs, in the order of the file, without duplicates.
        skipped: The rows that do not count, in the order of the file.
    """

    pairs: tuple[Pair, ...]
    skipped: tuple[SkippedRow, ...]


def read_pairs(path: Path, *, labelled: bool) -> PairSheet:
    """Read pairs from CSV or JSON lines.

    Columns: query and/or query_image, text and/or image, relevant (0 or 1), instruction; others are ignored. Images are
    paths relative to the file. In JSON lines one row may hold several documents, as a list `documents` of texts or of
    objects with the keys text, image and relevant. A row that cannot be used costs only itself. Of equal pairs the
    first one counts; if their labels contradict each other, none does.

    Args:
        path: The file, UTF-8, whose name ends with .csv, .jsonl or .ndjson.
        labelled: Whether only rows with a label count. Otherwise a label may be missing.

    Raises:
        ConfigurationError: The file cannot be read, or a column is missing.
    """
    return _collect(path, read_sheet(path), partial(_find_beside, path.parent), labelled)


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
    return _collect(name, parse_sheet(name, data), find_file, labelled, limit)


def _collect(
    name: PurePath, rows: Sequence[Row], find_file: FindFile, labelled: bool, limit: int | None = None
) -> PairSheet:
    _check_columns(name, rows, labelled)
    pairs: list[Pair] = []
    skipped: list[SkippedRow] = []
    for row in rows:
        if row.problem is not None:
            skipped.append(SkippedRow(row.number, row.problem))
            continue
        for cells in _expand(row):
            if limit is not None and len(pairs) + len(skipped) >= limit:
                raise ConfigurationError(f"{name} has more than {limit} rows; calibrate on fewer of them")
            try:
                pair = _parse_pair(row.number, cells, find_file)
                if labelled and pair.relevant is None:
                    raise InvalidInputError("relevant is empty; fill in 0 or 1")
            except InvalidInputError as error:
                skipped.append(SkippedRow(row.number, str(error)))
            else:
                pairs.append(pair)
    unique, duplicates = _drop_duplicates(pairs)
    return PairSheet(tuple(unique), tuple(sorted([*skipped, *duplicates], key=lambda skip: skip.row)))


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
            skipped.append(SkippedRow(pair.row, f"it has another instruction: {pair.instruction!r}"))
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


def _check_columns(path: PurePath, rows: Sequence[Row], labelled: bool) -> None:
    columns = {name for row in rows for name in row.cells}
    required = [("query", "query_image"), ("text", "image")] + [("relevant",)] * labelled
    for names in required:
        # A list of documents brings columns of its own.
        if columns and not columns & {*names, *(() if names == required[0] else ("documents",))}:
            raise ConfigurationError(
                f"{path} has no column {' or '.join(names)}; it has {', '.join(sorted(columns))}, expected some of "
                f"{', '.join(COLUMNS)}"
            )


def _expand(row: Row) -> Iterator[dict[str, Any]]:
    documents = row.cells.get("documents")
    if not isinstance(documents, list) or not documents:
        yield dict(row.cells)
        return
    for document in documents:
        yield {**row.cells, **(document if isinstance(document, dict) else {"text": document})}


def _parse_pair(number: int, cells: dict[str, Any], find_file: FindFile) -> Pair:
    query, text = _take_text(cells, "query"), _take_text(cells, "text")
    query_image, image = (
        find_file(name) if name else None for name in (_take_text(cells, "query_image"), _take_text(cells, "image"))
    )
    if query is None and query_image is None:
        raise InvalidInputError("it has no query; fill in query or query_image")
    if text is None and image is None:
        raise InvalidInputError("it has no document; fill in text or image")
    instruction, score = _take_text(cells, "instruction"), _take_score(cells)
    return Pair(number, query, query_image, text, image, instruction, _take_label(cells), score)


def _take_text(cells: dict[str, Any], column: str) -> str | None:
    value = cells.get(column)
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidInputError(f"{column} is {value!r}; expected a text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"{column} holds half a character (a lone surrogate): {error.reason}") from error
    return value.strip() or None


def _find_beside(folder: Path, name: str) -> Path:
    path = folder / name
    try:
        is_file = path.is_file()
    except (OSError, ValueError):  # a name that is too long, or with a NUL
        is_file = False
    if not is_file:
        raise InvalidInputError(f"image {name!r} is not a file in {folder}; paths are relative to the pairs' file")
    return path


def _take_label(cells: dict[str, Any]) -> bool | None:
    value = cells.get("relevant")
    if isinstance(value, bool):
        return value
    label = "" if value is None else str(value).strip()
    if label and label not in _LABELS:
        raise InvalidInputError(f"relevant is {value!r}; expected 0 or 1")
    return _LABELS.get(label)


def _take_score(cells: dict[str, Any]) -> float | None:
    """Return the score, or None where there is none in [0, 1]: whoever needs it says so."""
    value = cells.get("relevance_score")
    try:
        score = math.nan if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return score if 0 <= score <= 1 else None


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
            reason = f"the same pair is labelled 0 and 1 in rows {rows}; none of them counts, correct the labels"
            skipped += [SkippedRow(pair.row, reason) for pair in (first, *others)]
            continue
        unique.append(replace(first, relevant=next(iter(labels), None)))
        skipped += [SkippedRow(pair.row, f"it is the same pair as row {first.row}, which counts") for pair in others]
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
