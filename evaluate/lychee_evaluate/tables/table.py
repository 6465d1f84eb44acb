"""A table: columns that mean something, and rows with the numbers that people see."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Final

from lychee_evaluate.tables.column_names import HEADER_ROWS, count_meanings, find_meaning, match_columns, normalize_name
from lychee_evaluate.tables.message import Message, TableError

MAX_COLUMNS: Final = 256
_SHOWN_CHARACTERS: Final = 40


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        name: What the file calls it; its letter, as a spreadsheet shows it, if it has no name.
        meaning: What it holds, a key of `column_names.NAMES`, or None.
    """

    name: str
    meaning: str | None


@dataclass(frozen=True, slots=True)
class Row:
    """One row that is not empty.

    Attributes:
        number: The number of the row as a spreadsheet counts rows, header included; in JSON lines the number of the
            line. Both start at 1.
        cells: The cells in the order of the columns; those that are missing at the end are empty. A string, or None;
            a Message where a cell cannot have the value that it should; from JSON lines any value.
        problem: Why the row cannot be read, in which case `cells` is empty; otherwise None.
    """

    number: int
    cells: tuple[Any, ...]
    problem: Message | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """What a file holds.

    Attributes:
        columns: The columns.
        rows: The rows below the header that are not empty.
        notes: What was found out about the file, for the people who know better.
        decimal_comma: Whether 0,5 may stand for one half.
    """

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[Message, ...] = ()
    decimal_comma: bool = False

    @property
    def meanings(self) -> frozenset[str]:
        """What the columns hold."""
        return frozenset(column.meaning for column in self.columns if column.meaning is not None)

    def take(self, row: Row) -> dict[str, Any]:
        """Return the cells of a row by the meaning of their columns."""
        pairs = zip(self.columns, row.cells, strict=False)
        return {column.meaning: cell for column, cell in pairs if column.meaning is not None}


def make_columns(names: Sequence[str]) -> tuple[tuple[Column, ...], list[Message]]:
    """Return the columns of these names, and what is worth saying about them.

    Raises:
        TableError: Two columns that count have the same name, or there are too many.
    """
    if len(names) > MAX_COLUMNS:
        raise TableError("too_many_columns", columns=len(names), limit=MAX_COLUMNS)
    meanings = match_columns(names)
    seen: set[str] = set()
    for name, meaning in zip(names, meanings, strict=True):
        if meaning is not None and meaning in seen:
            raise TableError("column_twice", column=name.strip())
        seen.update({meaning} if meaning else ())
    named = tuple(
        Column(name.strip() or column_letter(place), meaning)
        for place, (name, meaning) in enumerate(zip(names, meanings, strict=True), start=1)
    )
    read = [
        f"{column.name[:_SHOWN_CHARACTERS]} = {column.meaning}"
        for column in named
        if column.meaning is not None and normalize_name(column.name) != column.meaning
    ]
    passed = [
        column.name[:_SHOWN_CHARACTERS]
        for column in named
        if column.meaning is None and find_meaning(column.name) not in (None, "id")
    ]
    notes = [Message("columns_read", {"columns": ", ".join(read)})] if read else []
    return named, notes + ([Message("columns_passed_over", {"columns": ", ".join(passed)})] if passed else [])


def make_table(
    rows: Iterable[tuple[int, Sequence[Any]]],
    *,
    notes: Sequence[Message] = (),
    decimal_comma: bool = False,
    checks_width: bool,
    max_rows: int | None,
) -> Table:
    """Find the header among numbered rows of cells, and return the table below it.

    The header is the first row that is not empty, unless one of the next rows has more of the known names: people put
    titles above their tables.

    Args:
        rows: The rows with their numbers; None is an empty cell.
        notes: What was found out before.
        decimal_comma: See `Table`.
        checks_width: Whether a row with more cells than the header was torn apart at a comma in a text. Otherwise
            what stands beside the table is passed over.
        max_rows: The most rows below the header.

    Raises:
        TableError: There is no row, there are too many, or the header cannot be used.
    """
    filled = ((number, cells) for number, cells in rows if any(not _is_blank(cell) for cell in cells))
    first = list(islice(filled, HEADER_ROWS))
    if not first:
        raise TableError("empty")
    place = max(range(len(first)), key=lambda place: (count_meanings(first[place][1]), -place))
    if count_meanings(first[place][1]) < 2:
        place = 0
    number, header = first[place]
    columns, said = make_columns([_as_name(cell) for cell in _trim(header)])
    if place:
        said.insert(0, Message("header_row", {"row": number}))
    found: list[Row] = []
    for number, cells in chain(first[place + 1 :], filled):
        if max_rows is not None and len(found) == max_rows:
            raise TableError("too_many_rows", limit=max_rows)
        kept = _trim(cells)
        if checks_width and len(kept) > len(columns):
            problem = Message("torn_row", {"cells": len(kept), "columns": len(columns)})
            found.append(Row(number, (), problem))
        elif any(not _is_blank(cell) for cell in kept[: len(columns)]):
            found.append(Row(number, tuple(kept[: len(columns)])))
    return Table(columns, tuple(found), (*notes, *said), decimal_comma)


def column_letter(place: int) -> str:
    """Return what a spreadsheet calls a column, from 1: A, B, ..., Z, AA."""
    letters = ""
    while place > 0:
        place, rest = divmod(place - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters


def _as_name(cell: Any) -> str:
    return cell if isinstance(cell, str) else ""


def _is_blank(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip())


def _trim(cells: Sequence[Any]) -> Sequence[Any]:
    """Leave out empty cells at the end."""
    end = len(cells)
    while end and _is_blank(cells[end - 1]):
        end -= 1
    return cells[:end]
