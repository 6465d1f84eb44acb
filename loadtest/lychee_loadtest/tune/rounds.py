"""Measuring settings in turn: every round gives each of them one window of load, so that all see the same machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tritonclient.utils import InferenceServerException

from lychee_loadtest.tune.choice import Point
from lychee_loadtest.tune.fleet import Fleet, NotLoadedError
from lychee_loadtest.tune.load import Stream
from lychee_loadtest.tune.progress import Progress

__all__ = ["Schedule", "StageResult", "Task", "run_rounds"]

LEAST_WINDOW_S: Final = 0.1
LEAST_ROUNDS: Final = 3
OVERRUN: Final = 1.5  # of the planned time, after which no further round begins
SLOWEST_CALL: Final = 1 / 8  # of a stage's time: when one call takes longer, larger batches are left out


@dataclass(frozen=True, slots=True)
class Task:
    """One setting to measure. Tasks of a group ascend in their rows, and a failure ends the group."""

    name: str
    candidate: str
    streams: tuple[Stream, ...]
    group: str = ""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long a stage measures: `seconds` of load, in `rounds` rounds."""

    title: str
    seconds: float
    rounds: int


@dataclass(frozen=True, slots=True)
class StageResult:
    """What a stage found: the points by task in the order of the tasks, and why other tasks have none."""

    points: dict[Task, Point]
    failures: dict[Task, str]


@dataclass(slots=True)
class _Series:
    rows_per_s: list[float] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    memory_bytes: int = 0


def run_rounds(fleet: Fleet, tasks: Sequence[Task], schedule: Schedule, progress: Progress) -> StageResult:
    """Measure all tasks in every round.

    A task that fails, or is too slow for the schedule, is left out from then on, and with it the later tasks of its
    group.
    """
    series = {task: _Series() for task in tasks}
    failures: dict[Task, str] = {}
    progress.step(f"{schedule.title}: warming up {len(tasks)} settings")
    for task in tasks:
        if task not in failures:
            _warm_up(fleet, task, series[task], failures, tasks, SLOWEST_CALL * schedule.seconds)
    window_s = max(LEAST_WINDOW_S, schedule.seconds / (schedule.rounds * max(1, len(tasks) - len(failures))))
    begun = time.monotonic()
    for number in range(1, schedule.rounds + 1):
        if number > LEAST_ROUNDS and time.monotonic() - begun > OVERRUN * schedule.seconds:
            break
        progress.step(f"{schedule.title}: round {number} of {schedule.rounds}")
        for task in tasks:
            if task not in failures:
                _measure(fleet, task, series[task], failures, tasks, window_s)
        progress.measured(schedule.seconds / schedule.rounds)
    points = {task: _point(task, series[task]) for task in tasks if task not in failures}
    return StageResult(points, failures)


def _warm_up(
    fleet: Fleet, task: Task, series: _Series, failures: dict[Task, str], tasks: Sequence[Task], slowest_s: float
) -> None:
    """Let the model allocate what it needs for this shape, and read how much memory it has then."""
    once = tuple(Stream(stream.workload, stream.rows, 1) for stream in task.streams)
    try:
        fleet.measure(task.candidate, once, 0)
        call_s = max(fleet.measure(task.candidate, once, 0).latencies_ms) / 1e3
    except (InferenceServerException, NotLoadedError) as error:
        _fail(task, str(error), failures, tasks)
        return
    series.memory_bytes = fleet.read_memory_bytes(task.candidate)
    if call_s > slowest_s:
        for later in _later(task, tasks):
            failures[later] = f"left out: {task.name} already takes {call_s:.1f} s"


def _measure(
    fleet: Fleet, task: Task, series: _Series, failures: dict[Task, str], tasks: Sequence[Task], window_s: float
) -> None:
    try:
        if not fleet.is_served(task.candidate):  # just started again: its first call is slow
            fleet.measure(task.candidate, task.streams, 0)
        sample = fleet.measure(task.candidate, task.streams, window_s)
    except (InferenceServerException, NotLoadedError) as error:
        _fail(task, str(error), failures, tasks)
        return
    series.rows_per_s.append(sample.rows_per_s)
    series.latencies_ms += sample.latencies_ms


def _fail(task: Task, reason: str, failures: dict[Task, str], tasks: Sequence[Task]) -> None:
    failures[task] = reason
    for later in _later(task, tasks):
        failures[later] = f"left out: {task.name} failed"


def _later(task: Task, tasks: Sequence[Task]) -> list[Task]:
    if not task.group:
        return []
    return [later for later in tasks[tasks.index(task) + 1 :] if later.group == task.group]


def _point(task: Task, series: _Series) -> Point:
    rows = task.streams[-1].rows
    return Point(task.name, rows, tuple(series.rows_per_s), tuple(series.latencies_ms), series.memory_bytes)
