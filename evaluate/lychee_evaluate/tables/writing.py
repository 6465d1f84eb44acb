"""Tables that people open in a spreadsheet, fill in, and hand back.

A spreadsheet takes a cell that begins with = + - or @ for a formula, and runs it. Cells that could be one are written
with an apostrophe before them, which reading takes away again.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Final, Literal, TypeAlias

from lychee_client import ConfigurationError

from lychee_evaluate.tables.cell_values import protect_cell
from lychee_evaluate.tables.message import TableError

Format: TypeAlias = Literal["csv", "xlsx", "jsonl"]
FORMATS: Final[Mapping[str, Format]] = {".csv": "csv", ".xlsx": "xlsx", ".jsonl": "jsonl", ".ndjson": "jsonl"}
# Source: https://support.microsoft.com/office/excel-specifications-and-limits-1672b34d-7043-467e-8e27-269d656771c3
MAX_WORKBOOK_CELL: Final = 32_767
_COLUMN_WIDTH: Final = 36
_NOT_IN_XML: Final = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


def table_format(path: PurePath) -> Format:
    """Return the format in which a file of this name is written.

    Raises:
        ConfigurationError: It is another suffix, or a workbook and openpyxl is missing.
    """
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise ConfigurationError(f"{path} ends with {path.suffix!r}; expected one of {', '.join(FORMATS)}")
    if kind == "xlsx":
        _import_openpyxl()
    return kind


def format_table(rows: Sequence[Mapping[str, str]], columns: Sequence[str], kind: Format) -> bytes:
    """Return the content of a file that `read_table` reads back, and that spreadsheets open rightly.

    Args:
        rows: The rows, each a mapping from column to text; a missing column is an empty cell.
        columns: The columns, in the order to write them.
        kind: The format of the file.

    Raises:
        ConfigurationError: A text is longer than a cell of a workbook can be, or openpyxl is missing.
    """
    if kind == "jsonl":
        lines = [json.dumps({name: row.get(name, "") for name in columns}, ensure_ascii=False) + "\n" for row in rows]
        return "".join(lines).encode("utf-8")
    cells = [list(columns), *([protect_cell(row.get(name, "")) for name in columns] for row in rows)]
    if kind == "xlsx":
        return _format_workbook(cells)
    file = io.StringIO()
    csv.writer(file).writerows(cells)
    return file.getvalue().encode("utf-8-sig")  # without the mark, Excel takes it for another encoding


def _format_workbook(rows: Sequence[Sequence[str]]) -> bytes:
    _import_openpyxl()
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.styles import Alignment, Font
    from openpyxl.utils import get_column_letter

    for number, row in enumerate(rows, start=1):
        longest = max(map(len, row))
        if longest > MAX_WORKBOOK_CELL:
            raise ConfigurationError(
                f"row {number} has a text of {longest} characters, a cell of .xlsx holds {MAX_WORKBOOK_CELL}; "
                "write .csv or .jsonl"
            )
    book = Workbook(write_only=True)
    sheet = book.create_sheet("pairs")
    sheet.freeze_panes = "A2"
    for place in range(1, len(rows[0]) + 1):
        sheet.column_dimensions[get_column_letter(place)].width = _COLUMN_WIDTH
    for number, row in enumerate(rows, start=1):
        cells = []
        for text in row:
            cell = WriteOnlyCell(sheet, value=_NOT_IN_XML.sub("\ufffd", text) or None)
            if text:
                cell.data_type = "s"  # or "#N/A" would be an error
            cell.alignment = Alignment(wrap_text=True, vertical="top")
            if number == 1:
                cell.font = Font(bold=True)
            cells.append(cell)
        sheet.append(cells)
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def _import_openpyxl() -> None:
    try:
        import openpyxl  # noqa: F401
    except ImportError as error:
        raise TableError("needs_openpyxl") from error
