"""`POST /v1/tables`: a file as people have it, as columns and rows for whoever cannot read it: the page, a program."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import FastAPI, Query, Request
from lychee_evaluate.tables.message import Message, TableError
from lychee_evaluate.tables.reading import read_table
from lychee_evaluate.tables.table import Table
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from lychee_server.defaults import MIB
from lychee_server.gateway.answer_schemas import ErrorAnswer
from lychee_server.gateway.errors import make_error

MAX_BYTES: Final = 16 * MIB  # of which a table in memory is many times as large
MAX_ROWS: Final = 20_000
MAX_CELLS: Final = 500_000
# The meanings that callers are told; "documents" is a list, which a table of texts cannot hold.
_TOLD: Final = frozenset(("query", "query_image", "text", "image", "relevant", "relevance_score", "instruction", "id"))
_BODY: Final = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


class ColumnEntry(BaseModel):
    """One column."""

    name: str = Field(description="What the file calls it; its letter, if it has no name.")
    meaning: str | None = Field(
        description="query, query_image, text, image, relevant, relevance_score, instruction, id, or null."
    )


class Wording(BaseModel):
    """One thing to say, in both languages."""

    kind: str
    values: dict[str, str | int | float]
    message: dict[str, str] = Field(description='By language: "en" and "zh".')


class RowProblem(Wording):
    """What is wrong with one row."""

    row: int


class TableAnswer(BaseModel):
    """A file's content."""

    columns: list[ColumnEntry]
    rows: list[list[str | None]] = Field(description="The rows below the header, a cell for each column.")
    row_numbers: list[int] = Field(description="The number of each row, as a spreadsheet shows it.")
    notes: list[Wording] = Field(description="What was found out about the file: encoding, separator, sheet, columns.")
    problems: list[RowProblem] = Field(description="Rows that are missing, or have an empty cell, because of an error.")


def install(app: FastAPI) -> None:
    """Add the route to an app, whose middleware bounds the size of a body."""
    one_at_a_time = asyncio.Semaphore(1)  # a table takes many times its file's memory

    @app.post(
        "/v1/tables",
        tags=["tables"],
        summary="Read a table",
        response_model=TableAnswer,
        responses={
            400: {"model": ErrorAnswer, "description": "It is no table, or cannot be read without a guess."},
            413: {"model": ErrorAnswer, "description": "The body is too large."},
        },
        openapi_extra=_BODY,
    )
    async def read(
        request: Request,
        name: Annotated[str, Query(max_length=1000, description="The name of the file, with its suffix.")],
        encoding: Annotated[
            str | None, Query(max_length=100, description="Of a text that does not say; by default found.")
        ] = None,
    ) -> Response:
        """Read CSV, tab-separated text, a workbook or JSON lines, in any common encoding; nothing is kept.

        The body is the file. An error has its kind, values and wordings by language in `errors`.
        """
        data = await request.body()
        async with one_at_a_time:
            return await asyncio.to_thread(_answer, name, data, encoding)


def _answer(name: str, data: bytes, encoding: str | None) -> Response:
    try:
        if len(data) > MAX_BYTES:
            raise TableError("too_large", limit=MAX_BYTES // MIB)
        table = read_table(name, data, encoding=encoding, max_rows=MAX_ROWS)
        if len(table.rows) * len(table.columns) > MAX_CELLS:
            raise TableError("too_many_cells", cells=len(table.rows) * len(table.columns), limit=MAX_CELLS)
        return JSONResponse(_describe(table))
    except TableError as error:
        return make_error(400, "invalid_table", str(error), None, errors=[error.message.to_json()])


def _describe(table: Table) -> dict[str, Any]:
    rows: list[list[str | None]] = []
    numbers: list[int] = []
    problems: list[dict[str, Any]] = []
    for row in table.rows:
        found = [cell for cell in (row.problem, *row.cells) if isinstance(cell, Message)]
        problems += [{"row": row.number, **message.to_json()} for message in found]
        if row.problem is None:
            rows.append(_pad([_to_text(cell) for cell in row.cells], len(table.columns)))
            numbers.append(row.number)
    return {
        "columns": [
            {"name": column.name, "meaning": column.meaning if column.meaning in _TOLD else None}
            for column in table.columns
        ],
        "rows": rows,
        "row_numbers": numbers,
        "notes": [note.to_json() for note in table.notes],
        "problems": problems,
    }


def _pad(cells: Sequence[str | None], size: int) -> list[str | None]:
    return [*cells, *[None] * (size - len(cells))]


def _to_text(cell: Any) -> str | None:
    """Return a cell as a text that UTF-8 can hold; None where it is empty or cannot be had."""
    if cell is None or isinstance(cell, Message):
        return None
    try:
        text = cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False)
    except RecursionError:
        return None
    return text.encode("utf-8", "replace").decode("utf-8")
