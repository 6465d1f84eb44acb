"""The actors that score, each with a client of its own. Ray Data makes them on the nodes of a cluster."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pyarrow as pa
from lychee_client import UNSET, AsyncLycheeClient
from ray.util import get_node_ip_address

from lychee_bulk.columns import Columns, find_columns
from lychee_bulk.images import ImageReader
from lychee_bulk.options import ScoringOptions, ServedModel
from lychee_bulk.parts import read_tally, write_part
from lychee_bulk.results import SCHEMA, Results, Tally
from lychee_bulk.rows import find_pairs, keep, name_rows, read_rows
from lychee_bulk.scoring import BatchScorer, find_model
from lychee_bulk.storage import Folder
from lychee_bulk.units import UNIT_FIELDS, Unit

READING_THREADS = 8
SUMMARY = pa.schema([*UNIT_FIELDS, ("failed", pa.int64())])
"""What is told of each unit that is done."""

T = TypeVar("T")


class Scorer:
    """Scores tables on an event loop in a thread of its own; may be called from several threads.

    Args:
        options: What to ask of whom.
        model: The model of the run; None: the one that the server has now.
    """

    def __init__(self, options: ScoringOptions, model: ServedModel | None = None) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="lychee-bulk")
        self._thread.start()
        self._options = options
        self.model = model or self._run(self._find_model())
        self._scorer = self._run(self._open())

    def score(
        self, table: pa.Table, columns: Columns, prefix: str, start: int, kept: tuple[str, ...]
    ) -> tuple[pa.Table, Tally]:
        """Score the rows of a table.

        Args:
            table: The rows.
            columns: Which columns hold what.
            prefix: What the ids of rows without one begin with.
            start: The position of the first row.
            kept: The columns that go into the output.

        Returns:
            A row for each pair, in order, and their counts.
        """
        rows = read_rows(table)
        pairs, errors = find_pairs(rows, columns)
        results = self._run(self._scorer.score(pairs)) if pairs else Results()
        results.errors.update(errors)
        scored, order = results.to_table(name_rows(rows, columns, prefix, start), self.model.version)
        for name, values in keep(table, rows, kept, order).items():
            scored = scored.append_column(name, values)
        return scored, results.tally(table.num_rows)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _find_model(self) -> ServedModel:
        async with self._client() as client:
            return await find_model(client, self._options)

    async def _open(self) -> BatchScorer:
        threads = ThreadPoolExecutor(READING_THREADS, "lychee-bulk-read")
        images = ImageReader(self._options.image_folder, self._options.image_hosts, threads)
        return BatchScorer(self._client(), images, self._options, self.model)

    def _client(self) -> AsyncLycheeClient:
        size = self._options.max_img_size
        return AsyncLycheeClient(
            self._options.for_node(str(get_node_ip_address())),  # type: ignore[no-untyped-call]
            timeout_s=self._options.timeout_s,
            policy=self._options.policy,
            max_img_size=UNSET if size is None else size,
        )


class TableScorer:
    """Scores the batches of a Dataset.

    Args:
        options: See Scorer.
        model: See Scorer.
        columns: The columns by what they hold, instead of what their names say.
        id_column: The column that names rows.
        kept: The columns that stay beside the scores; None keeps all.
    """

    def __init__(
        self,
        options: ScoringOptions,
        model: ServedModel | None,
        columns: dict[str, str],
        id_column: str | None,
        kept: tuple[str, ...] | None,
    ) -> None:
        self._scorer = Scorer(options, model)
        self._chosen, self._id_column, self._kept = columns, id_column, kept

    def __call__(self, batch: pa.Table) -> pa.Table:
        columns = find_columns(batch.column_names, self._chosen, self._id_column)
        kept = (
            tuple(name for name in batch.column_names if name not in SCHEMA.names) if self._kept is None else self._kept
        )
        scored, _ = self._scorer.score(batch, columns, "row", 0, kept)
        return scored if self._id_column else scored.drop_columns(["id"])


class UnitScorer:
    """Scores units, and writes a part of the output for each.

    Args:
        options: See Scorer.
        model: See Scorer.
        columns: Which columns hold what.
        names: The name of each file of the input.
        kept: The columns that go into the output.
        folder: The output.
    """

    def __init__(
        self,
        options: ScoringOptions,
        model: ServedModel,
        columns: Columns,
        names: tuple[str, ...],
        kept: tuple[str, ...],
        folder: Folder,
    ) -> None:
        self._scorer = Scorer(options, model)
        self._columns, self._names, self._kept, self._folder = columns, names, kept, folder

    def __call__(self, batch: pa.Table) -> pa.Table:
        done = [self._score(row) for row in batch.to_pylist()]
        return pa.Table.from_pylist(done, SUMMARY)

    def _score(self, row: dict[str, Any]) -> dict[str, int]:
        content = row.pop("content")
        unit = Unit(row["file"], row["start"], row["rows"], row["is_last"])
        if self._folder.exists(unit.name):  # an actor on a node that died had come so far
            tally = read_tally(self._folder, unit)
        else:
            table = pa.ipc.open_stream(content).read_all()
            name = self._names[unit.file]
            scored, tally = self._scorer.score(table, self._columns, name, unit.start, self._kept if unit.rows else ())
            write_part(self._folder, unit, scored, tally)
        return {**row, "failed": tally.failed}


def ask_for_model(options: ScoringOptions) -> ServedModel:
    """Return the model of the server that this node asks; it may be far from where the run was started."""
    return Scorer(options).model
