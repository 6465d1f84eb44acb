"""Tables that people fill in: CSV as spreadsheets write it, or JSON lines.

A spreadsheet takes a cell that begins with = + - or @ for a formula, and runs it. Cells that could be one are written
with an apostrophe before them, which reading takes away again.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Final

from lychee_client import ConfigurationError

CSV_SUFFIX: Final = ".csv"
JSONL_SUFFIXES: Final = (".jsonl", ".ndjson")
# Full-width signs count too: Chinese and Japanese spreadsheets turn them into plain ones.
_FORMULA: Final = re.compile(r"'*[=+\-@＝＋－＠\t\r\n]")
# The default of 131,072 is short for a document; more than this is no table cell.
_MAX_CELL_CHARACTERS: Final = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a sheet.

    Attributes:
        number: The number of the row as a spreadsheet counts rows, header included; in JSON lines the number of the
            line. Both start at 1.
        cells: The cells by column; a cell of a CSV file is a string.
        problem: Why the row cannot be read, in which case `cells` is empty; otherwise None.
    """

    number: int
    cells: Mapping[str, Any]
    problem: str | None = None


def sheet_format(path: PurePath) -> str:
    """Return "csv" or "jsonl", by the suffix.

    Raises:
        ConfigurationError: It is another suffix.
    """
    suffix = path.suffix.lower()
    if suffix == CSV_SUFFIX:
        return "csv"
    if suffix in JSONL_SUFFIXES:
        return "jsonl"
    raise ConfigurationError(f"{path} ends with {path.suffix!r}; expected .csv, .jsonl or .ndjson")


def read_sheet(path: Path) -> list[Row]:
    """Read all rows that are not empty. A row that cannot be read is returned with its problem.

    Raises:
        ConfigurationError: The file cannot be read, has another suffix, is not UTF-8, is not CSV, or has no usable
            header.
    """
    sheet_format(path)  # before a large file of another kind is read
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}; check the path") from error
    return parse_sheet(path, data)


def parse_sheet(name: PurePath, data: bytes) -> list[Row]:
    """Do what `read_sheet` does with a file's content.

    Args:
        name: The name of the file. Its suffix says what the content is, and messages name it; nothing of that name is
            opened.
        data: The content of the file.

    Raises:
        ConfigurationError: The name has another suffix, or the content is not UTF-8, is not CSV, or has no usable
            header.
    """
    kind = sheet_format(name)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{name} is not UTF-8: {error.reason} at byte {error.start}; "
            "in Excel, save it as 'CSV UTF-8 (comma delimited)'"
        ) from error
    return list(_read_csv(name, text) if kind == "csv" else _read_json_lines(text))


def format_sheet(rows: Sequence[Mapping[str, str]], columns: Sequence[str], kind: str) -> bytes:
    """Return the content of a file that `read_sheet` reads back, and that spreadsheets open rightly.

    Args:
        rows: The rows, each a mapping from column to text; a missing column is an empty cell.
        columns: The columns, in the order to write them.
        kind: The format of the file: "csv" or "jsonl".
    """
    if kind == "jsonl":
        lines = [json.dumps({name: row.get(name, "") for name in columns}, ensure_ascii=False) + "\n" for row in rows]
        return "".join(lines).encode("utf-8")
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(columns)
    writer.writerows([protect_cell(row.get(name, "")) for name in columns] for row in rows)
    return file.getvalue().encode("utf-8-sig")  # without the mark, Excel takes it for another encoding


def protect_cell(text: str) -> str:
    """Put an apostrophe before what a spreadsheet would take for a formula."""
    return "'" + text if _FORMULA.match(text) else text


def restore_cell(text: str) -> str:
    """Take away the apostrophe that `protect_cell` has put there."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def _read_csv(path: PurePath, text: str) -> Iterator[Row]:
    csv.field_size_limit(max(csv.field_size_limit(), _MAX_CELL_CHARACTERS))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: list[str] = []
    number = 0
    while True:
        number += 1
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:  # a quote in the wrong place: where the next row begins is anyone's guess
            raise ConfigurationError(
                f"{path}, row {number} (line {reader.line_num}) is not CSV: {error}; "
                'put texts with quotes or commas in quotes, and double quotes inside: "a ""word"", and more"'
            ) from error
        if not any(cell.strip() for cell in cells):
            continue
        if not columns:
            columns = [cell.strip().lower() for cell in cells]
            _check_header(path, columns)
        elif len(cells) > len(columns) and any(cells[len(columns) :]):
            yield Row(
                number, {}, f"it has {len(cells)} cells, the header {len(columns)}; put texts with commas in quotes"
            )
        else:
            padded = cells + [""] * (len(columns) - len(cells))
            yield Row(number, {name: restore_cell(cell) for name, cell in zip(columns, padded, strict=False)})
    if not columns:
        raise ConfigurationError(f"{path} is empty; expected a header and rows")


def _check_header(path: PurePath, columns: Sequence[str]) -> None:
    named = [name for name in columns if name]
    if len(named) != len(set(named)):
        twice = next(name for name in named if named.count(name) > 1)
        raise ConfigurationError(f"{path} has the column {twice!r} twice; rename one")
    if len(columns) == 1 and re.search("[;\t]", columns[0]):
        raise ConfigurationError(
            f"{path} has the header {columns[0]!r}; expected commas between the columns: "
            "in Excel, save it as 'CSV UTF-8 (comma delimited)'"
        )


def _read_json_lines(text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):  # splitlines() also splits at U+2028 within a string
        if not line.strip():
            continue
        try:
            data = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Row(number, {}, f"it is not JSON: {error}")
            continue
        if isinstance(data, dict):
            yield Row(number, data)
        else:
            yield Row(number, {}, f"it is a JSON {type(data).__name__}; expected an object with the columns as keys")
