"""What stands between the columns of a text file."""

from __future__ import annotations

import csv
import io
import re
from typing import Final

from lychee_evaluate.tables.column_names import HEADER_ROWS, count_meanings

SEPARATORS: Final = (",", ";", "\t", "|")
_DECLARATION: Final = re.compile(r"""\s*"?sep=([^\w\s"]|\t)"?[,;\t|]*(?:\r\n|\n|\r|$)""", re.IGNORECASE)
_START_CHARACTERS: Final = 2**16


def take_declaration(text: str) -> tuple[str | None, str]:
    """Take away Excel's own first line `sep=;`; return the separator that it names, or None, and the rest."""
    found = _DECLARATION.match(text[:80])
    return (found[1], text[found.end() :]) if found else (None, text)


def find_separator(text: str, preferred: str = ",") -> str:
    """Return the separator that makes one of the first rows have the most known columns, or else the most columns.

    Args:
        text: The text of the file.
        preferred: What it is if there is one column only.
    """
    start = text[:_START_CHARACTERS]
    best, most = preferred, (0, 1)
    for separator in SEPARATORS:
        rows = _read_rows(start, separator)
        known = max((count_meanings(row) for row in rows), default=0)
        count = (known, len(rows[0]) if rows else 0)
        if count > most or (count == most and separator == preferred):
            best, most = separator, count
    return best


def _read_rows(text: str, separator: str) -> list[list[str]]:
    """Return the first rows that are not empty, as far as they can be read."""
    rows: list[list[str]] = []
    try:
        for cells in csv.reader(io.StringIO(text, newline=""), delimiter=separator):
            if any(cell.strip() for cell in cells):
                rows.append(cells)
            if len(rows) == HEADER_ROWS:
                break
    except csv.Error:
        pass
    return rows
