"""Workbooks of Excel and WPS, read by openpyxl, within limits."""

from __future__ import annotations

import datetime
import io
import re
import threading
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from xml.etree.ElementTree import iterparse

from lychee_evaluate.tables.cell_values import restore_cell
from lychee_evaluate.tables.message import Message, TableError
from lychee_evaluate.tables.table import Table, column_letter, make_table

# Each MiB takes up to a second to read; whoever bounds the rows reads what others send.
MAX_UNPACKED_BYTES: Final = 256 * 2**20
MAX_UNPACKED_BYTES_SENT: Final = 32 * 2**20
_MAIN: Final = re.compile(r"\{.*\}")
_CELL: Final = re.compile(r"([A-Z]{1,3})([0-9]{1,7})")
_ESCAPED: Final = re.compile("_x000D_", re.IGNORECASE)
# One at a time: each may take as much memory as is allowed, and warnings are switched off for the whole process.
_reading = threading.Lock()


@dataclass(slots=True)
class _Layout:
    """What openpyxl does not tell of a sheet that it streams.

    Attributes:
        merged: By the row and the column of a merged range's first cell, the last row of the range.
        uncalculated: Rows and columns of formulas that the program that wrote the file did not compute.
    """

    merged: dict[tuple[int, int], int] = field(default_factory=dict)
    uncalculated: set[tuple[int, int]] = field(default_factory=set)


def read_workbook(data: bytes, *, max_rows: int | None) -> Table:
    """Return the first sheet that is shown and not empty.

    Raises:
        TableError: openpyxl is missing, or the workbook is damaged, too large, or empty.
    """
    try:
        import openpyxl
    except ImportError as error:
        raise TableError("needs_openpyxl") from error
    with _reading, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what openpyxl does not keep when it writes, which nobody does
        try:
            names = _check_size(data, MAX_UNPACKED_BYTES if max_rows is None else MAX_UNPACKED_BYTES_SENT)
            book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
            try:
                return _read(book, names, data, max_rows)
            finally:
                book.close()
        except TableError:
            raise
        except Exception as error:  # openpyxl raises whatever a file that it did not expect makes it stumble over
            raise TableError("workbook_damaged", reason=str(error)[:80] or type(error).__name__) from error


def _check_size(data: bytes, limit: int) -> list[str]:
    """Return the names of a workbook's parts, unless those that are read unpack to too much."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
    size = sum(entry.file_size for entry in entries if not entry.filename.startswith("xl/media/"))
    if size > limit:  # zipfile never unpacks more of a part than its entry says
        raise TableError("workbook_too_large", size=size // 2**20, limit=limit // 2**20)
    return [entry.filename for entry in entries]


def _read(book: Any, names: Sequence[str], data: bytes, max_rows: int | None) -> Table:
    shown = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible"]
    hidden = [sheet for sheet in book.worksheets if sheet.sheet_state != "visible"]
    for sheet in [*shown, *hidden]:
        sheet.reset_dimensions()  # what a file says about its size is often wrong
        if not _has_cells(sheet):
            continue
        notes = []
        if len(book.worksheets) > 1:
            others = ", ".join(other.title for other in book.worksheets if other is not sheet)
            notes.append(Message("sheet_read", {"sheet": sheet.title, "others": others[:200]}))
        if any(name.startswith("xl/media/") for name in names):
            notes.append(Message("pictures_passed_over"))
        layout = _read_layout(data, sheet)
        if layout.merged:
            notes.append(Message("merged_cells"))
        rows = _fill_rows(sheet, layout)
        return make_table(rows, notes=notes, decimal_comma=True, checks_width=False, max_rows=max_rows)
    raise TableError("empty")


def _has_cells(sheet: Any) -> bool:
    return any(value not in (None, "") for row in sheet.iter_rows(values_only=True) for value in row)


def _read_layout(data: bytes, sheet: Any) -> _Layout:
    layout = _Layout()
    path = sheet._worksheet_path.lstrip("/")  # openpyxl has it nowhere else
    with zipfile.ZipFile(io.BytesIO(data)) as archive, archive.open(path) as file:
        for _, element in iterparse(file):
            tag = _MAIN.sub("", element.tag)
            if tag == "c":
                _note_formula(element, layout)
            elif tag == "mergeCell":
                _note_merged(element.get("ref", ""), layout)
            elif tag == "row":
                element.clear()
    return layout


def _note_formula(cell: Any, layout: _Layout) -> None:
    parts = {_MAIN.sub("", part.tag): part for part in cell}
    value = parts.get("v")
    if "f" in parts and (value is None or (not value.text and cell.get("t") != "str")):
        place = _parse_place(cell.get("r", ""))
        if place is not None:
            layout.uncalculated.add(place)


def _note_merged(reference: str, layout: _Layout) -> None:
    first, _, last = reference.partition(":")
    start, end = _parse_place(first), _parse_place(last)
    if start is not None and end is not None and end[0] > start[0]:
        layout.merged[start] = end[0]


def _parse_place(reference: str) -> tuple[int, int] | None:
    """Return row and column of a reference like "B7", both from 1."""
    found = _CELL.fullmatch(reference)
    if found is None:
        return None
    column = 0
    for letter in found[1]:
        column = column * 26 + ord(letter) - ord("A") + 1
    return int(found[2]), column


def _fill_rows(sheet: Any, layout: _Layout) -> Iterator[tuple[int, list[Any]]]:
    """Yield the rows with their numbers; a cell that is merged over several rows counts in each that has others."""
    starts: dict[int, list[int]] = {}
    for row, column in layout.merged:
        starts.setdefault(row, []).append(column)
    open_ranges: dict[int, tuple[int, Any]] = {}
    for number, values in enumerate(sheet.iter_rows(values_only=True), start=1):
        cells: list[Any] = [_to_text(value) for value in values]
        for place, value in enumerate(cells, start=1):
            if value is None and (number, place) in layout.uncalculated:
                cells[place - 1] = Message("not_calculated", {"cell": f"{column_letter(place)}{number}"})
        if any(cells):
            for column, (last, value) in open_ranges.items():
                if number <= last and value is not None:
                    cells += [None] * (column - len(cells))
                    cells[column - 1] = cells[column - 1] if cells[column - 1] is not None else value
        for column in starts.get(number, ()):
            value = cells[column - 1] if column <= len(cells) else None
            open_ranges[column] = (layout.merged[number, column], value)
        yield number, cells


def _to_text(value: Any) -> str | None:
    """Return what a cell shows, without the formats of numbers: 1.0 is "1", and a date is 2026-11-27."""
    if value is None or isinstance(value, str):
        return None if value is None else restore_cell(_ESCAPED.sub("", value))
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ").removesuffix(" 00:00:00")
    return str(value)
