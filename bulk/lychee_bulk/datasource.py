"""Ray Data's way to the input: a task for each file, that yields its units as they are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pyarrow as pa
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from lychee_bulk.reading import TEXT_SCHEMA, read_tables
from lychee_bulk.storage import InputFile
from lychee_bulk.units import UNIT_FIELDS, UnitSize, cut

UNIT_SCHEMA = pa.schema([*UNIT_FIELDS, ("content", pa.large_binary())])
"""A unit as one row, with its rows as an Arrow stream: Ray Data may merge and split blocks, and never cuts a unit."""


class UnitSource(Datasource):  # type: ignore[misc, unused-ignore]
    """Reads units that are not done.

    Args:
        files: The files of the input.
        columns: The columns to read, of Parquet.
        size: When a unit is full.
        done: The names of the parts that are in the output already.
    """

    def __init__(
        self, files: tuple[InputFile, ...], columns: tuple[str, ...], size: UnitSize, done: frozenset[str]
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._files, self._columns, self._size, self._done = files, columns, size, done

    def get_name(self) -> str:
        """Return the name for Ray's messages."""
        return "Read"

    def estimate_inmemory_data_size(self) -> int | None:
        """Return the size of the input, roughly."""
        return sum(file.size_bytes for file in self._files)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """Return a task for each file."""
        return [self._make_task(number, file) for number, file in enumerate(self._files)]

    def _make_task(self, number: int, file: InputFile) -> ReadTask:
        columns, size, done = self._columns, self._size, self._done

        def read() -> Iterator[pa.Table]:
            for unit, table in cut(read_tables(file, columns), number, size):
                if unit.name in done:
                    continue
                position = table["position"][-1].as_py() if table.schema == TEXT_SCHEMA else 0
                row = {**asdict(unit), "position": position, "content": _to_bytes(table)}
                yield pa.Table.from_pylist([row], UNIT_SCHEMA)

        metadata = BlockMetadata(num_rows=None, size_bytes=None, input_files=(file.path,), exec_stats=None)
        return ReadTask(read, metadata, schema=UNIT_SCHEMA)


def _to_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    content: bytes = sink.getvalue().to_pybytes()
    return content
