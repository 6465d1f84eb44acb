"""One way in for every table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, Final

from lychee_client import ConfigurationError

from lychee_evaluate.tables.cell_values import ERRORS, restore_cell
from lychee_evaluate.tables.column_names import find_meaning
from lychee_evaluate.tables.encoding import UTF8, decode
from lychee_evaluate.tables.file_kind import check_suffix, find_kind
from lychee_evaluate.tables.message import Message, TableError
from lychee_evaluate.tables.separator import SEPARATORS, find_separator, take_declaration
from lychee_evaluate.tables.table import MAX_COLUMNS, Row, Table, make_columns, make_table
from lychee_evaluate.tables.workbook import read_workbook

# The default of 131,072 is short for a document; more than this is no table cell.
_MAX_CELL_CHARACTERS: Final = 16 * 2**20
_MAX_SEPARATORS: Final = 2**16
_MAX_LINES_PER_ROW: Final = 100


def read_table_file(path: Path, *, encoding: str | None = None) -> Table:
    """Do what `read_table` does with a file.

    Raises:
        ConfigurationError: The file cannot be read; see `read_table`.
    """
    try:
        check_suffix(path)  # before a large file of another kind is read
    except TableError as error:
        error.file = str(path)
        raise
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}; check the path") from error
    return read_table(str(path), data, encoding=encoding)


def read_table(name: str, data: bytes, *, encoding: str | None = None, max_rows: int | None = None) -> Table:
    """Return the table that a file holds: CSV and its kin in any common encoding, a workbook, or JSON lines.

    Args:
        name: The name of the file. Its suffix says what the content is, unless the content says so itself; messages
            name it; nothing of that name is opened.
        data: The content of the file.
        encoding: The encoding of a text, as Python names it; None finds out.
        max_rows: The most rows below the header.

    Raises:
        TableError: It is no table, or cannot be read without a guess.
    """
    try:
        kind = find_kind(PurePath(name), data)
        if kind == "workbook":
            return _check_errors(read_workbook(data, max_rows=max_rows))
        decoded = decode(data, encoding, knows_header=_knows_header)
        notes = [] if decoded.label == UTF8 else [Message("encoding_read", {"encoding": decoded.label})]
        if kind == "json":
            return _read_json_lines(decoded.text, notes, max_rows)
        preferred = "\t" if PurePath(name).suffix.lower() in (".tsv", ".tab") else ","
        return _check_errors(_read_text(decoded.text, preferred, notes, max_rows))
    except TableError as error:
        error.file = name
        raise


def _knows_header(start: str) -> bool:
    """Say whether the first lines have a column of a Chinese name."""
    names = (name for line in start.splitlines() for separator in SEPARATORS for name in line.split(separator))
    return any(not name.isascii() and find_meaning(name) is not None for name in names)


def _read_text(text: str, preferred: str, notes: list[Message], max_rows: int | None) -> Table:
    declared, text = take_declaration(text)
    separator = declared or find_separator(text, preferred)
    if separator != ",":
        notes.append(Message("separator_read", {"separator": "tab" if separator == "\t" else separator}))
    rows = _read_rows(text, separator, max_rows)
    return make_table(rows, notes=notes, decimal_comma=separator != ",", checks_width=True, max_rows=max_rows)


def _read_rows(text: str, separator: str, max_rows: int | None) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(max(csv.field_size_limit(), _MAX_CELL_CHARACTERS))
    reader = csv.reader(_check_lines(text, separator, max_rows), delimiter=separator, strict=True)
    number = 0
    while True:
        number += 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:  # a quote in the wrong place: where the next row begins is anyone's guess
            raise TableError("not_csv", row=number, line=reader.line_num, reason=str(error)) from error
        yield number, [restore_cell(cell) for cell in cells]


def _check_lines(text: str, separator: str, max_rows: int | None) -> Iterator[str]:
    """Yield the lines; one that would become a row of millions of cells, or millions of empty lines, are refused."""
    for number, line in enumerate(io.StringIO(text, newline="")):
        if line.count(separator) > _MAX_SEPARATORS:
            raise TableError("too_many_columns", columns=line.count(separator), limit=MAX_COLUMNS)
        if max_rows is not None and number > _MAX_LINES_PER_ROW * max_rows:
            raise TableError("too_many_rows", limit=max_rows)
        yield line


def _check_errors(table: Table) -> Table:
    """Put a message in the place of each #N/A in a column that counts."""
    counts = [column.meaning is not None for column in table.columns]
    rows = []
    for row in table.rows:
        if any(used and _is_error(cell) for cell, used in zip(row.cells, counts, strict=False)):
            cells = (Message("error_cell", {"value": cell}) if _is_error(cell) else cell for cell in row.cells)
            row = Row(row.number, tuple(cells))
        rows.append(row)
    return Table(table.columns, tuple(rows), table.notes, table.decimal_comma)


def _is_error(cell: Any) -> bool:
    return isinstance(cell, str) and cell in ERRORS


def _read_json_lines(text: str, notes: list[Message], max_rows: int | None) -> Table:
    names: dict[str, int] = {}
    rows: list[Row] = []
    for number, line in enumerate(io.StringIO(text, newline="\n"), start=1):
        if not line.strip():
            continue
        if max_rows is not None and len(rows) == max_rows:
            raise TableError("too_many_rows", limit=max_rows)
        try:
            data = json.loads(line)
        except (ValueError, RecursionError) as error:
            rows.append(Row(number, (), Message("not_json", {"reason": str(error)})))
            continue
        if not isinstance(data, dict):
            rows.append(Row(number, (), Message("not_an_object", {"type": type(data).__name__})))
            continue
        for key in data:
            names.setdefault(key, len(names))
        if len(names) > MAX_COLUMNS:
            raise TableError("too_many_columns", columns=len(names), limit=MAX_COLUMNS)
        cells: list[Any] = [None] * len(names)
        for key, value in data.items():
            cells[names[key]] = value
        rows.append(Row(number, tuple(cells)))
    columns, said = make_columns(list(names))
    return Table(columns, tuple(rows), (*notes, *said))
