"""The parts of the output: one Parquet file for each unit, with its counts in the footer."""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from lychee_bulk.results import Tally
from lychee_bulk.storage import Folder
from lychee_bulk.units import Unit, parse_unit

KEY: Final = b"lychee"
READERS: Final = 16


def write_part(folder: Folder, unit: Unit, table: pa.Table, tally: Tally) -> None:
    """Write the output of a unit, in one step. Its name makes writing it twice the same as once."""
    metadata = {**(table.schema.metadata or {}), KEY: json.dumps(tally.to_json()).encode()}
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), sink, compression="zstd")
    folder.write(unit.name, sink.getvalue())


def read_tally(folder: Folder, unit: Unit) -> Tally:
    """Return the counts of a part; only its footer is read."""
    with folder.open(unit.name) as file:
        metadata = pq.read_metadata(file).metadata
    return Tally.from_json(json.loads(metadata[KEY]))


def read_tallies(folder: Folder, units: list[Unit]) -> Tally:
    """Return the counts of many parts together."""
    with ThreadPoolExecutor(READERS) as pool:
        return sum(pool.map(lambda unit: read_tally(folder, unit), units), Tally())


def list_units(names: set[str]) -> list[Unit]:
    """Return the units that are among the names of a folder."""
    return sorted(unit for name in names if (unit := parse_unit(name)) is not None)
