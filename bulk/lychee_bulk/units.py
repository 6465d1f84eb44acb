"""What is scored and committed as one: a run of rows of one file, which becomes one file of the output.

The name of a unit says which rows it holds, so the output's listing is the checkpoint: what is there is done, and
nothing is written twice under two names. Where a file is cut depends on its content and the two limits alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from lychee_bulk.errors import IncompleteError

UNIT_FIELDS: Final = (
    ("file", pa.int32()),
    ("start", pa.int64()),
    ("rows", pa.int64()),
    ("is_last", pa.bool_()),
    ("position", pa.int64()),
)
"""A unit in a table: its attributes, and how many bytes of its file had been read at its end, 0 if nobody knows."""
_REMNANT: Final = re.compile(r"\.part-[-0-9a-z]+\.parquet\.[0-9a-f]+")
_NAME: Final = re.compile(r"part-(\d{5})-(\d{12})-(\d{8})(-last)?\.parquet")


@dataclass(frozen=True, slots=True, order=True)
class Unit:
    """A run of rows.

    Attributes:
        file: The position of its file among the run's.
        start: The position of its first row in the file.
        rows: How many rows it has.
        is_last: Whether the file ends with it.
    """

    file: int
    start: int
    rows: int
    is_last: bool

    @property
    def name(self) -> str:
        """The name of its file in the output."""
        return f"part-{self.file:05d}-{self.start:012d}-{self.rows:08d}{'-last' if self.is_last else ''}.parquet"


@dataclass(frozen=True, slots=True)
class UnitSize:
    """When a unit is full.

    Attributes:
        rows: The most rows of a unit.
        size_bytes: The size in bytes from which on a unit gets no more rows.
    """

    rows: int
    size_bytes: int


def parse_unit(name: str) -> Unit | None:
    """Return the unit that a file of the output holds, by the file's name; None for other files."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    return Unit(int(match[1]), int(match[2]), int(match[3]), match[4] is not None)


def is_remnant(name: str) -> bool:
    """Whether a file of the output is the part of a writer that was killed before it gave the part its name."""
    return _REMNANT.fullmatch(name) is not None


def cut(tables: Iterable[pa.Table], file: int, size: UnitSize) -> Iterator[tuple[Unit, pa.Table]]:
    """Cut the rows of one file into units. A file without rows is one unit without rows.

    Args:
        tables: The rows of the file, in order, in pieces of any size and one schema.
        file: The position of the file among the run's.
        size: When a unit is full.
    """
    start = 0
    held: pa.Table | None = None  # one is held back, so that the last one is known as such
    for table in _slices(tables, size):
        if held is not None:
            yield Unit(file, start, held.num_rows, False), held
            start += held.num_rows
        held = table
    if held is None:
        held = pa.table({})
    yield Unit(file, start, held.num_rows, True), held


def check_whole(units: Iterable[Unit], files: int) -> None:
    """Make sure that units are every row of every file, each once.

    Raises:
        IncompleteError: Rows are missing, or are there twice.
    """
    by_file: dict[int, list[Unit]] = {}
    for unit in sorted(units):
        by_file.setdefault(unit.file, []).append(unit)
    for file in range(files):
        end, is_ended = 0, False
        for unit in by_file.pop(file, []):
            if unit.start != end or is_ended:
                what = "twice" if unit.start < end or is_ended else "missing"
                raise IncompleteError(
                    f"rows of input file {file} are {what} in the output: {unit.name} follows row {end}; "
                    "run the command again with --overwrite"
                )
            end, is_ended = unit.start + unit.rows, unit.is_last
        if not is_ended:
            raise IncompleteError(
                f"the output ends at row {end} of input file {file}, before its end; is it a folder that all nodes "
                "share? Run the command again"
            )
    if by_file:
        raise IncompleteError(
            f"the output holds rows of input file {min(by_file)}, and the input has {files} files; "
            "run the command again with --overwrite"
        )


def _slices(tables: Iterable[pa.Table], size: UnitSize) -> Iterator[pa.Table]:
    """Yield full units, and what is left at the end; nothing without rows."""
    pieces: list[pa.Table] = []
    rows, size_bytes = 0, 0
    for table in tables:
        while table.num_rows:
            share = max(1, -(-table.nbytes // table.num_rows))  # bytes per row, rounded up
            room = max(1, -(-(size.size_bytes - size_bytes) // share))
            taken = min(table.num_rows, size.rows - rows, room)
            piece, table = table.slice(0, taken), table.slice(taken)
            pieces.append(piece)
            rows += taken
            size_bytes += taken * share
            if rows >= size.rows or size_bytes >= size.size_bytes:
                yield pa.concat_tables(pieces)
                pieces, rows, size_bytes = [], 0, 0
    if rows:
        yield pa.concat_tables(pieces)
