"""The staged search for one model: batch sizes, then instances and threads, then the queue delay."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from lychee_loadtest.tune.choice import Bounds, NoChoiceError, Point, choose, compare
from lychee_loadtest.tune.fleet import Fleet
from lychee_loadtest.tune.load import Stream
from lychee_loadtest.tune.progress import Progress
from lychee_loadtest.tune.reasons import describe_choice, explain_batch, explain_other
from lychee_loadtest.tune.rounds import Schedule, StageResult, Task, run_rounds
from lychee_loadtest.tune.settings import Settings, current_settings, with_settings, without_batching
from lychee_loadtest.tune.workloads import Subject, Workload

__all__ = ["FULL", "QUICK", "STARTS", "Curve", "Effort", "Study", "instance_grid", "study_model"]

BATCH_SHARE: Final = 0.5
GRID_SHARE: Final = 0.25
DELAY_SHARE: Final = 0.25
MOST_INSTANCES: Final = 8
INTERACTIVE_CALLERS: Final = 8
BULK_ROWS: Final = 8
STARTS: Final = 2  # of Triton, for one model that fits into memory
CURRENT: Final = "as it is"


@dataclass(frozen=True, slots=True)
class Effort:
    """How thoroughly one model is measured.

    Attributes:
        seconds: How many seconds of load one model gets.
        rounds: How many rounds every comparison has, unless they take too long.
        delays_us: The queue delays to try, ascending from 0.
    """

    seconds: float
    rounds: int
    delays_us: tuple[int, ...]


FULL: Final = Effort(seconds=105, rounds=5, delays_us=(0, 500, 2000, 5000))
QUICK: Final = Effort(seconds=12, rounds=3, delays_us=(0, 2000))


@dataclass(frozen=True, slots=True)
class Curve:
    """Throughput and latency over batch sizes for inputs of one shape."""

    workload: Workload
    points: tuple[Point, ...]
    chosen: Point
    reason: str
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Study:
    """What was found for one model.

    Attributes:
        subject: The model.
        curves: One curve for each input shape.
        instances: The points of instances and threads, the simplest first.
        delays: The points of queue delays under a mixed load, ascending; latencies are those of single rows.
        current: The unchanged configuration under the same mixed load.
        settings: The settings that were chosen.
        reasons: Why they were chosen, in words, one line each.
    """

    subject: Subject
    curves: tuple[Curve, ...]
    instances: tuple[Point, ...]
    delays: tuple[Point, ...]
    current: Point
    settings: Settings
    reasons: tuple[str, ...]

    @property
    def noise(self) -> float:
        """How far the rounds of a setting lie apart, as a share: the median of all settings."""
        points = [*(point for curve in self.curves for point in curve.points), *self.instances, *self.delays]
        return statistics.median(point.spread for point in points)


def study_model(subject: Subject, effort: Effort, limits: Bounds, progress: Progress) -> Study:
    """Measure one model, and choose its settings.

    Raises:
        NoChoiceError: Nothing is within the limits.
        ServerStartError: Triton does not start with the model.
    """
    base = replace(current_settings(subject.config), instances=1, threads=0)
    grid = {_grid_name(*pair): pair for pair in instance_grid(len(os.sched_getaffinity(0)))}
    configs = {
        f"{subject.name}-{count}x{threads}": _unbatched(subject, base, count, threads)
        for count, threads in grid.values()
    }
    with Fleet(subject, configs, progress) as fleet:
        first = next(iter(configs))
        curves = _measure_batches(fleet, first, subject, effort, limits, progress)
        points, (instances, threads), reason = _measure_grid(fleet, grid, subject, curves, effort, limits, progress)
    settings = Settings(
        batches=tuple(sorted({curve.chosen.rows for curve in curves})),
        max_run_elements=max(curve.chosen.rows * curve.workload.row_elements for curve in curves),
        instances=instances,
        threads=threads,
    )
    reasons = [f"batch, {curve.workload.name}: {curve.reason}" for curve in curves]
    reasons.append(f"instances: {reason}")
    return _measure_delays(subject, settings, curves, points, reasons, effort, limits, progress)


def instance_grid(cores: int) -> list[tuple[int, int]]:
    """Return instances and threads of each, the simplest first; together they never have more threads than cores.

    0 threads are all cores, as in a configuration that does not say.
    """
    grid = [(1, 0)]
    if cores > 1:
        grid.append((1, cores // 2))
    count = 2
    while count <= min(cores, MOST_INSTANCES):
        grid.append((count, cores // count))
        count *= 2
    return grid


def batch_sizes(largest: int) -> list[int]:
    """Return 1, 2, 4 and so on up to the largest, which is always among them."""
    sizes = [2**power for power in range(largest.bit_length()) if 2**power <= largest]
    return sizes if sizes[-1] == largest else [*sizes, largest]


def _unbatched(subject: Subject, base: Settings, count: int, threads: int) -> Any:
    return without_batching(with_settings(subject.config, replace(base, instances=count, threads=threads)))


def _grid_name(count: int, threads: int) -> str:
    each = "all cores" if not threads else f"{threads} thread{'s' if threads > 1 else ''}"
    return f"{count} instance{'s' if count > 1 else ''} with {each}"


def _measure_batches(
    fleet: Fleet, candidate: str, subject: Subject, effort: Effort, limits: Bounds, progress: Progress
) -> tuple[Curve, ...]:
    tasks = [
        Task(str(rows), candidate, (Stream(workload, rows, 2),), group=workload.name)
        for workload in subject.workloads
        for rows in batch_sizes(subject.config.max_batch_size)
    ]
    tasks.sort(key=lambda task: task.streams[0].rows * task.streams[0].workload.row_elements)
    schedule = Schedule(f"{subject.name}, batch sizes", BATCH_SHARE * effort.seconds, effort.rounds)
    outcome = run_rounds(fleet, tasks, schedule, progress)
    return tuple(_curve(workload, outcome, limits) for workload in subject.workloads)


def _curve(workload: Workload, outcome: StageResult, limits: Bounds) -> Curve:
    points = [point for task, point in outcome.points.items() if task.group == workload.name]
    failed = {task.name: reason for task, reason in outcome.failures.items() if task.group == workload.name}
    left_out = tuple(f"{name}: {reason}" for name, reason in failed.items())
    try:
        chosen = choose(points, limits)
    except NoChoiceError as error:
        details = "; ".join([str(error), *left_out])
        raise NoChoiceError(f"No batch size of {workload.name} can be chosen. {details}") from error
    return Curve(workload, tuple(points), chosen, explain_batch(points, chosen, limits), left_out)


def _measure_grid(
    fleet: Fleet,
    grid: Mapping[str, tuple[int, int]],
    subject: Subject,
    curves: Sequence[Curve],
    effort: Effort,
    limits: Bounds,
    progress: Progress,
) -> tuple[tuple[Point, ...], tuple[int, int], str]:
    """Return the points, the chosen pair, and why."""
    work = curves[-1]
    tasks = [
        Task(
            name,
            f"{subject.name}-{count}x{threads}",
            (Stream(work.workload, work.chosen.rows, count + 1),),
        )
        for name, (count, threads) in grid.items()
    ]
    schedule = Schedule(f"{subject.name}, instances and threads", GRID_SHARE * effort.seconds, effort.rounds)
    outcome = run_rounds(fleet, tasks, schedule, progress)
    points = list(outcome.points.values())
    chosen = choose(points, limits)
    return tuple(points), grid[chosen.name], f"{chosen.name}; {explain_other(points, chosen, limits)}"


def _measure_delays(
    subject: Subject,
    settings: Settings,
    curves: Sequence[Curve],
    instances: tuple[Point, ...],
    reasons: Sequence[str],
    effort: Effort,
    limits: Bounds,
    progress: Progress,
) -> Study:
    """Try queue delays, and the unchanged configuration beside them, under interactive callers and a bulk job."""
    configs = {f"{subject.name}-now": subject.config}
    by_name = {}
    for delay_us in effort.delays_us:
        delayed = replace(settings, delay_us=delay_us)
        by_name[f"{delay_us / 1000:g} ms"] = delayed
        configs[f"{subject.name}-{delay_us}us"] = with_settings(subject.config, delayed)
    work = curves[-1]  # of both, so that a row is as much work as any other
    bulk_rows = min(subject.config.max_batch_size, max(BULK_ROWS, work.chosen.rows))
    streams = (Stream(work.workload, 1, INTERACTIVE_CALLERS), Stream(work.workload, bulk_rows, 1))
    tasks = [Task(name, candidate, streams) for name, candidate in zip([CURRENT, *by_name], configs, strict=True)]
    schedule = Schedule(f"{subject.name}, queue delay", DELAY_SHARE * effort.seconds, effort.rounds)
    with Fleet(subject, configs, progress) as fleet:
        outcome = run_rounds(fleet, tasks, schedule, progress)
    current = outcome.points.get(tasks[0])
    points = [point for task, point in outcome.points.items() if task is not tasks[0]]
    memory_only = Bounds(memory_bytes=limits.memory_bytes)  # so many callers queue longer than the user's one would
    chosen = choose(points, memory_only)
    lines = [*reasons, f"queue delay: {chosen.name}; {explain_other(points, chosen, memory_only)}"]
    found = by_name[chosen.name]
    if current is None:
        raise NoChoiceError(f"{subject.name} failed as it is: {outcome.failures[tasks[0]]}")
    if compare(current, chosen).is_real and memory_only.breach(current) is None:
        found = current_settings(subject.config)
        lines.append(
            f"kept as in config.pbtxt: under the mixed load it has {describe_choice(current)}, "
            f"the settings above {describe_choice(chosen)}"
        )
    else:
        lines.append(f"mixed load: {describe_choice(chosen)} for single rows; config.pbtxt {describe_choice(current)}")
    return Study(subject, tuple(curves), instances, tuple(points), current, found, tuple(lines))
