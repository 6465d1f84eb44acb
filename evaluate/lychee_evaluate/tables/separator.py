"""What stands between the columns of a text file."""

from __future__ import annotations

import csv
import io
import re
from typing import Final

from lychee_evaluate.tables.column_names import find_meaning

SEPARATORS: Final = (",", ";", "\t", "|")
_DECLARATION: Final = re.compile(r"""\s*"?sep=([^\w\s"]|\t)"?[,;\t|]*(?:\r\n|\n|\r|$)""", re.IGNORECASE)
_HEADER_CHARACTERS: Final = 2**16


def take_declaration(text: str) -> tuple[str | None, str]:
    """Take away Excel's own first line `sep=;`; return the separator that it names, or None, and the rest."""
    found = _DECLARATION.match(text[:80])
    return (found[1], text[found.end() :]) if found else (None, text)


def find_separator(text: str, preferred: str = ",") -> str:
    """Return the separator that makes the header have the most known columns, or else the most columns.

    Args:
        text: The text of the file.
        preferred: What it is if the header has one column only.
    """
    start = text.lstrip("\r\n")[:_HEADER_CHARACTERS]
    best, most = preferred, (0, 1)
    for separator in SEPARATORS:
        names = _read_header(start, separator)
        count = (sum(find_meaning(name) is not None for name in names), len(names))
        if count > most or (count == most and separator == preferred):
            best, most = separator, count
    return best


def _read_header(text: str, separator: str) -> list[str]:
    """Return the cells of the first row that is not empty."""
    try:
        for cells in csv.reader(io.StringIO(text, newline=""), delimiter=separator):
            if any(cell.strip() for cell in cells):
                return cells
    except csv.Error:
        pass
    return []
