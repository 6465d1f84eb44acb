"""The rows of a file, in pieces: Parquet as it is, lines of JSON and of CSV one by one."""

from __future__ import annotations

import csv
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.compression import compr
from fsspec.utils import infer_compression

from lychee_bulk.errors import InputError
from lychee_bulk.storage import InputFile, open_filesystem

PIECE_ROWS: Final = 1024
MAX_LINE_BYTES: Final = 256 * 2**20
PIECE_BYTES: Final = 2**20
TEXT_SCHEMA: Final = pa.schema([("row", pa.large_string()), ("problem", pa.string()), ("position", pa.int64())])
"""Of lines: a JSON object, or what is wrong with the line; and how many bytes of the file had been read by then."""
DAMAGES: Final = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""What an incomplete or damaged archive raises, and a network that fails."""

Line = tuple[str | None, str | None]
"""A JSON object, or what is wrong."""


def read_names(file: InputFile) -> list[str]:
    """Return the names of a file's columns; of JSON lines, those of the first rows.

    Raises:
        InputError: The file cannot be read, or names a column twice.
    """
    if file.kind == "parquet":
        with _open_parquet(file) as parquet:
            names: list[str] = list(parquet.schema_arrow.names)
        _check_names(file, names)
        return names
    for table in read_tables(file):
        rows = [json.loads(row) for row in table["row"].to_pylist() if row is not None]
        if rows:
            return list(dict.fromkeys(name for row in rows for name in row))
    return []


def count_rows(file: InputFile) -> int | None:
    """Return how many rows a file has where it says so, or None."""
    if file.kind != "parquet":
        return None
    with _open_parquet(file) as parquet:
        return int(parquet.metadata.num_rows)


def read_tables(file: InputFile, columns: tuple[str, ...] | None = None) -> Iterator[pa.Table]:
    """Yield a file's rows in order: those of Parquet as they are, and lines as TEXT_SCHEMA says.

    The pieces depend on the file alone.

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
        with _opened(file) as stored, _unpack(file, stored) as raw:
            rows = _csv_rows(raw, file) if file.kind == "csv" else _json_rows(raw)
            yield from _gather(rows, stored.tell)
    except DAMAGES as error:
        raise InputError(f"{file.path} cannot be read: {error}") from error


def _read_parquet(file: InputFile, columns: tuple[str, ...] | None) -> Iterator[pa.Table]:
    with _open_parquet(file) as parquet:
        try:
            for batch in parquet.iter_batches(PIECE_ROWS, columns=None if columns is None else list(columns)):
                yield pa.Table.from_batches([batch])
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{file.path} cannot be read: {error}") from error


@contextmanager
def _open_parquet(file: InputFile) -> Iterator[pq.ParquetFile]:
    with _opened(file) as stored:
        try:
            parquet = pq.ParquetFile(stored, pre_buffer=False, page_checksum_verification=True)
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{file.path} is no Parquet file that can be read: {error}") from error
        yield parquet


def _opened(file: InputFile) -> Any:
    filesystem, path = open_filesystem(file.path)
    try:
        return filesystem.open(path, "rb")
    except OSError as error:
        raise InputError(f"{file.path} cannot be opened: {error}") from error


def _unpack(file: InputFile, stored: Any) -> Any:
    """Return the content of a file that may be compressed, by its name."""
    kind = infer_compression(file.path)
    if kind not in compr:
        raise InputError(f"{file.path} is compressed with {kind}, and no package for it is installed; use gzip")
    return closing(compr[kind](stored, mode="rb")) if kind else nullcontext(stored)


def _check_names(file: InputFile, names: list[str]) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{file.path} has two columns {twice!r}; rename one of them")


def _gather(rows: Iterator[Line], tell: Callable[[], int]) -> Iterator[pa.Table]:
    """Yield tables of lines."""
    held: list[tuple[str | None, str | None, int]] = []
    size = 0
    for row, problem in rows:
        held.append((row, problem, tell()))
        size += len(row or "")
        if len(held) >= PIECE_ROWS or size >= PIECE_BYTES:
            yield _to_table(held)
            held, size = [], 0
    if held:
        yield _to_table(held)


def _to_table(rows: list[tuple[str | None, str | None, int]]) -> pa.Table:
    columns = zip(*rows, strict=True)
    return pa.table([pa.array(one, kind) for one, kind in zip(columns, TEXT_SCHEMA.types, strict=True)], TEXT_SCHEMA)


def _json_rows(raw: Any) -> Iterator[Line]:
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


def _csv_rows(raw: Any, file: InputFile) -> Iterator[Line]:
    """Yield the cells of each row as a JSON object, or a problem."""
    csv.field_size_limit(MAX_LINE_BYTES)
    with io.TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape", newline="") as text:
        yield from _parse_csv(csv.reader(text), file)


def _parse_csv(rows: Iterator[list[str]], file: InputFile) -> Iterator[Line]:
    header = next(rows, [])
    if not all(map(_is_utf8, header)):
        raise InputError(f"{file.path} is not UTF-8: its first row is {', '.join(map(repr, header))}; convert it")
    _check_names(file, header)
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
        elif not all(map(_is_utf8, cells)):
            yield None, "the row is not UTF-8"
        else:
            yield json.dumps(dict(zip(header, cells, strict=True)), ensure_ascii=False), None


def _is_utf8(cell: str) -> bool:
    """Whether a cell has no byte that was none of a character."""
    return cell.isascii() or not any("\udc80" <= character <= "\udcff" for character in cell)
