"""The rows of a file, in pieces: Parquet as it is, lines of JSON and of CSV one by one."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from lychee_bulk.errors import InputError
from lychee_bulk.storage import InputFile, open_filesystem

PIECE_ROWS: Final = 1024
MAX_LINE_BYTES: Final = 256 * 2**20
SNIFFED_BYTES: Final = 2**20
TEXT_SCHEMA: Final = pa.schema([("row", pa.large_string()), ("problem", pa.string())])
"""Of lines: a JSON object, or what is wrong with the line."""


def read_names(file: InputFile) -> list[str]:
    """Return the names of a file's columns; of JSON lines, those of the first rows.

    Raises:
        InputError: The file cannot be read.
    """
    if file.kind == "parquet":
        return list(_open_parquet(file).schema_arrow.names)
    names: dict[str, None] = {}
    for table in read_tables(file):
        for row in table["row"].to_pylist():
            if row is not None:
                names.update(dict.fromkeys(json.loads(row)))
        if names:
            return list(names)
    return list(names)


def count_rows(file: InputFile) -> int | None:
    """Return how many rows a file has where it says so, or None."""
    return _open_parquet(file).metadata.num_rows if file.kind == "parquet" else None


def read_tables(file: InputFile, columns: tuple[str, ...] | None = None) -> Iterator[pa.Table]:
    """Yield a file's rows in order. The pieces depend on the file alone.

    Args:
        file: The file.
        columns: The columns to read, of Parquet; None reads all.

    Raises:
        InputError: The file cannot be read: the whole of it, not a row.
    """
    if file.kind == "parquet":
        yield from _read_parquet(file, columns)
        return
    try:
        with fsspec.open(file.path, "rb", compression="infer") as raw:
            rows = _csv_rows(raw) if file.kind == "csv" else _json_rows(raw)
            yield from _gather(rows)
    except (OSError, EOFError) as error:  # an incomplete or damaged archive, a network that fails
        raise InputError(f"{file.path} cannot be read: {error}") from error


def _read_parquet(file: InputFile, columns: tuple[str, ...] | None) -> Iterator[pa.Table]:
    try:
        with _open_parquet(file) as parquet:
            for batch in parquet.iter_batches(PIECE_ROWS, columns=None if columns is None else list(columns)):
                yield pa.Table.from_batches([batch])
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{file.path} cannot be read: {error}") from error


def _open_parquet(file: InputFile) -> pq.ParquetFile:
    filesystem, path = open_filesystem(file.path)
    try:
        return pq.ParquetFile(filesystem.open(path, "rb"), pre_buffer=False)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{file.path} is no Parquet file that can be read: {error}") from error


def _gather(rows: Iterator[tuple[str | None, str | None]]) -> Iterator[pa.Table]:
    held: list[tuple[str | None, str | None]] = []
    size = 0
    for row in rows:
        held.append(row)
        size += len(row[0] or "")
        if len(held) >= PIECE_ROWS or size >= SNIFFED_BYTES:
            yield _to_table(held)
            held, size = [], 0
    if held:
        yield _to_table(held)


def _to_table(rows: list[tuple[str | None, str | None]]) -> pa.Table:
    texts, problems = zip(*rows, strict=True)
    return pa.table([pa.array(texts, pa.large_string()), pa.array(problems, pa.string())], schema=TEXT_SCHEMA)


def _json_rows(raw: Any) -> Iterator[tuple[str | None, str | None]]:
    """Yield a JSON object or a problem for each line; empty lines are no rows."""
    is_first = True
    while line := raw.readline(MAX_LINE_BYTES + 1):
        if len(line) > MAX_LINE_BYTES:
            yield None, f"the line is longer than {MAX_LINE_BYTES} bytes"
            while line and not line.endswith(b"\n"):
                line = raw.readline(MAX_LINE_BYTES)
            continue
        if is_first:
            line, is_first = line.removeprefix(b"\xef\xbb\xbf"), False
        if not line.strip():
            continue
        try:
            text = line.decode("utf-8").strip()
            value = json.loads(text)
        except UnicodeDecodeError as error:
            yield None, f"the line is not UTF-8 at its byte {error.start}"
        except (ValueError, RecursionError) as error:
            yield None, f"the line is no JSON: {error}"
        else:
            if isinstance(value, Mapping):
                yield text, None
            else:
                yield None, f"the line is JSON of type {type(value).__name__}; expected an object"


def _csv_rows(raw: Any) -> Iterator[tuple[str | None, str | None]]:
    """Yield the cells of each row as a JSON object, or a problem."""
    csv.field_size_limit(MAX_LINE_BYTES)
    text = io.TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape", newline="")
    rows = csv.reader(text)
    header = next(rows, [])
    if len(set(header)) < len(header):
        raise InputError(f"the first row of a CSV file names a column twice: {', '.join(map(repr, header))}")
    while True:
        try:
            cells = next(rows, None)
        except csv.Error as error:
            yield None, f"the row is no CSV: {error}"
            continue
        if cells is None:
            return
        if not cells:  # an empty line
            continue
        if len(cells) != len(header):
            yield None, f"the row has {len(cells)} cells, and the first row {len(header)}"
        elif any("\udc80" <= character <= "\udcff" for cell in cells for character in cell if not cell.isascii()):
            yield None, "the row is not UTF-8"
        else:
            yield json.dumps(dict(zip(header, cells, strict=True)), ensure_ascii=False), None
