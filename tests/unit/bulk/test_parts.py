"""Parts of an output: their rows, and the counts in their footers."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from lychee_bulk.parts import list_units, read_tallies, read_tally, write_part
from lychee_bulk.results import Results, Tally
from lychee_bulk.storage import Folder
from lychee_bulk.units import Unit

UNITS = [Unit(0, 0, 2, False), Unit(0, 2, 1, True)]


def test_counts_are_kept_with_the_rows(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    table, _ = Results().to_table([], None)
    tallies = [Tally(2, 1, {"no_query": 1}, ("beware",)), Tally(1, 1)]
    for unit, tally in zip(UNITS, tallies, strict=True):
        write_part(folder, unit, table.append_column("n", pa.array([], pa.int8())), tally)
    write_part(folder, UNITS[1], table.append_column("n", pa.array([], pa.int8())), tallies[1])
    (tmp_path / "notes.parquet").touch()
    assert list_units(folder.names()) == UNITS
    assert read_tally(folder, UNITS[0]) == tallies[0]
    assert read_tallies(folder, UNITS) == tallies[0] + tallies[1]
    assert pq.read_schema(tmp_path / UNITS[0].name).names == [*table.column_names, "n"]
