"""A run: from the files of the input to a complete output, or as far as it comes; and on from there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from lychee_client import LycheeError

from lychee_bulk.cluster import STORE_BYTES, connected, settle_context
from lychee_bulk.columns import find_columns
from lychee_bulk.errors import BulkError, InputError, OutputError
from lychee_bulk.extent import Extent
from lychee_bulk.manifest import NAME, SUCCESS, Plan, check_same, read_manifest, write_manifest
from lychee_bulk.options import ScoringOptions, ServedModel
from lychee_bulk.parts import READERS, list_units, read_tallies
from lychee_bulk.progress import INTERVAL_S, shown
from lychee_bulk.reading import count_rows, read_names
from lychee_bulk.results import SCHEMA, Tally
from lychee_bulk.storage import Folder, find_files
from lychee_bulk.units import Unit, UnitSize, check_whole, is_remnant

UNIT: Final = UnitSize(rows=1024, size_bytes=32 * 2**20)
READING_CPUS: Final = 0.25  # unlike an actor's share, so that Ray Data does not read in the actors


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a run.

    Attributes:
        tally: The counts of the whole output.
        resumed_rows: How many of the rows had been done before.
        seconds: How long this session took.
        was_complete: Whether there was nothing left to do.
        model: The model, as the manifest names it.
    """

    tally: Tally
    resumed_rows: int
    seconds: float
    was_complete: bool
    model: Mapping[str, Any]

    @property
    def rows_per_second(self) -> float:
        """Rows of this session per second."""
        return (self.tally.rows - self.resumed_rows) / self.seconds if self.seconds else 0.0


def make_plan(
    address: str,
    options: ScoringOptions,
    *,
    kind: str | None = None,
    chosen: Mapping[str, str] | None = None,
    id_column: str | None = None,
    kept: tuple[str, ...] = (),
    size: UnitSize = UNIT,
) -> Plan:
    """Look at the input, and find its columns.

    Args:
        address: A file, a folder or a pattern.
        options: What to ask of whom.
        kind: The format of the files, instead of what their names end with.
        chosen: Columns by what they hold, instead of what their names say.
        id_column: The column that names rows.
        kept: The columns that go into the output.
        size: When a unit is full.

    Raises:
        InputError: There is no file, or a column is missing.
    """
    files = find_files(address, kind)
    with ThreadPoolExecutor(READERS) as pool:
        names = list(dict.fromkeys(name for found in pool.map(read_names, files) for name in found))
    if not names:
        raise InputError(f"{address} has no rows; expected at least one")
    columns = find_columns(names, chosen, id_column)
    unknown = [name for name in kept if name not in names]
    if unknown:
        raise InputError(f"--keep-columns names {unknown[0]!r}; the input has {', '.join(map(repr, names))}")
    taken = [name for name in kept if name in SCHEMA.names]
    if taken:
        raise InputError(f"--keep-columns names {taken[0]!r}, which the output has itself; rename it in the input")
    return Plan(address, files, columns, tuple(dict.fromkeys(kept)), size, options)


def run(
    plan: Plan,
    output: str,
    *,
    address: str | None = None,
    actors: int | None = None,
    overwrite: bool = False,
    store_bytes: int = STORE_BYTES,
    tell: Callable[[str], None] = print,
    interval_s: float = INTERVAL_S,
) -> Report:
    """Score what is not scored yet, and complete the output.

    Args:
        plan: What to score.
        output: A folder, local or in a bucket, that all nodes share.
        address: The address of a Ray cluster; None starts one on this machine.
        actors: How many actors score; None takes one for each node.
        overwrite: Whether to score all anew, instead of going on.
        store_bytes: The size of the object store, where Ray is started here.
        tell: Writes a line about what happens.
        interval_s: Seconds between two lines of progress.

    Raises:
        OutputError: The folder holds another run.
        BulkError: The run cannot go on; what is scored stays.
        LycheeError: The server cannot be used.
    """
    folder = Folder(output)
    if folder.is_inside(plan.address):
        raise OutputError(
            f"{output} is inside the input {plan.address}, and would be its next one; give another folder"
        )
    before = None if overwrite else read_manifest(folder)
    if before is None and not overwrite and list_units(folder.names()):
        raise OutputError(f"{output} holds parts and no {NAME}; give another folder, or --overwrite")
    if before is not None:
        plan = replace(plan, size=UnitSize(**before["unit"]))  # files are cut as they were
        check_same(folder, before, plan.to_json(None))
        if before["complete"] and folder.exists(SUCCESS):
            return Report(Tally.from_json(before), before["rows"], 0.0, True, before["model"])
    with connected(address, store_bytes) as ray:
        began = time.monotonic()
        model = _find_model(ray, plan.options)
        manifest = plan.to_json(model) | {"started_at": _now()}
        if before is not None:
            check_same(folder, before, manifest)
            manifest["started_at"] = before["started_at"]
        folder.create()
        if overwrite:
            names = folder.names()
            folder.delete({unit.name for unit in list_units(names)} | (names & {SUCCESS, NAME}))
        write_manifest(folder, manifest)
        nodes = [node for node in ray.nodes() if node["Alive"]]
        if folder.is_local and len(nodes) > 1:
            tell(f"{output} must be a folder that all {len(nodes)} nodes share")
        done = list_units(folder.names())
        resumed = sum(unit.rows for unit in done)
        if resumed:
            tell(f"{output} has {resumed:,} rows already; going on")
        _score(plan, model, folder, done, actors or _count_nodes(nodes), tell, interval_s)
    names = folder.names()
    units = list_units(names)
    check_whole(units, len(plan.files))
    folder.delete(filter(is_remnant, names))
    tally = read_tallies(folder, units)
    seconds = time.monotonic() - began
    report = Report(tally, resumed, seconds, False, model.to_json())
    manifest |= {
        "complete": True,
        **tally.to_json(),
        "resumed_rows": resumed,
        "finished_at": _now(),
        "seconds": round(seconds, 3),
        "rows_per_second": round(report.rows_per_second, 3),
    }
    write_manifest(folder, manifest)
    folder.write(SUCCESS, b"")
    return report


def _score(
    plan: Plan,
    model: ServedModel,
    folder: Folder,
    done: list[Unit],
    actors: int,
    tell: Callable[[str], None],
    interval_s: float,
) -> None:
    import ray.data

    from lychee_bulk.actors import UnitScorer
    from lychee_bulk.dataset import ACTOR_CPUS, make_pool
    from lychee_bulk.datasource import UnitSource

    settle_context()
    wanted = tuple(dict.fromkeys((*plan.columns.used, *plan.kept)))
    source = UnitSource(plan.files, wanted, plan.size, frozenset(unit.name for unit in done))
    names = tuple(file.name for file in plan.files)
    summaries = ray.data.read_datasource(
        source, override_num_blocks=len(plan.files), num_cpus=READING_CPUS
    ).map_batches(
        UnitScorer,
        fn_constructor_args=(plan.options, model, plan.columns, names, plan.kept, folder),
        batch_format="pyarrow",
        batch_size=1,
        compute=make_pool(actors),
        num_cpus=ACTOR_CPUS,
    )
    with ThreadPoolExecutor(READERS) as pool:
        counts = list(pool.map(count_rows, plan.files))
    extent = Extent(counts, [file.size_bytes for file in plan.files], done)
    with shown(extent, sum(unit.rows for unit in done), tell, interval_s) as advance:
        try:
            for batch in summaries.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for row in batch.to_pylist():
                    extent.learn(Unit(row["file"], row["start"], row["rows"], row["is_last"]), row["position"])
                    advance(row["rows"], row["failed"])
        except Exception as error:
            raise find_reason(error) from error


def find_reason(error: BaseException) -> BaseException:
    """Return the error of ours behind one of Ray's, or the error itself."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, (BulkError, LycheeError)):
            return one
        inner = one.exceptions if isinstance(one, BaseExceptionGroup) else ()
        waiting += [getattr(one, "cause", None), one.__cause__, one.__context__, *inner]
    return error


def _find_model(ray: Any, options: ScoringOptions) -> ServedModel:
    from lychee_bulk.actors import ask_for_model

    task = ray.remote(ask_for_model).options(num_cpus=READING_CPUS, scheduling_strategy="SPREAD")
    try:
        model: ServedModel = ray.get(task.remote(options))
    except ray.exceptions.RayError as error:
        raise find_reason(error) from error
    return model


def _count_nodes(nodes: list[dict[str, Any]]) -> int:
    """Return how many nodes can have an actor."""
    return max(1, sum(1 for node in nodes if node["Resources"].get("CPU", 0) >= 1))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
