"""Measuring in turn, with a stand-in for Triton that answers from a script."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from lychee_loadtest.tune.fleet import Fleet, NotLoadedError
from lychee_loadtest.tune.load import LoadSample, Stream
from lychee_loadtest.tune.progress import Progress
from lychee_loadtest.tune.rounds import Schedule, StageResult, Task, run_rounds
from lychee_loadtest.tune.study import batch_sizes, instance_grid
from lychee_loadtest.tune.workloads import Workload
from tritonclient.utils import InferenceServerException

WORK = Workload("16 tokens", (("input_ids", (16,)),))
SCHEDULE = Schedule("texts", seconds=8, rounds=4)


@dataclass
class ScriptedFleet:
    """Answers with fixed numbers; `latency_ms` and `errors` are by rows."""

    latency_ms: dict[int, float] = field(default_factory=dict)
    errors: dict[int, Exception] = field(default_factory=dict)
    calls: list[tuple[str, int, float]] = field(default_factory=list)

    def is_served(self, candidate: str) -> bool:
        return True

    def measure(self, candidate: str, streams: tuple[Stream, ...], window_s: float) -> LoadSample:
        rows = streams[-1].rows
        self.calls.append((candidate, rows, window_s))
        if rows in self.errors:
            raise self.errors[rows]
        return LoadSample(100.0 * rows, (self.latency_ms.get(rows, 1.0),))

    def read_memory_bytes(self, candidate: str) -> int:
        return 1000 + self.calls[-1][1]


def make_tasks(*rows: int) -> list[Task]:
    return [Task(str(count), "one", (Stream(WORK, count, 2),), group="16 tokens") for count in rows]


def run(fleet: ScriptedFleet, tasks: list[Task], says: list[str] | None = None) -> StageResult:
    progress = Progress((says if says is not None else []).append, measuring_s=8, starts=0)
    return run_rounds(cast(Fleet, fleet), tasks, SCHEDULE, progress)


def test_every_round_measures_every_setting_once() -> None:
    fleet = ScriptedFleet()
    outcome = run(fleet, make_tasks(1, 2, 4))
    measured = [rows for _, rows, window_s in fleet.calls if window_s > 0]
    assert measured == [1, 2, 4] * 4
    assert [point.rows_per_s for point in outcome.points.values()] == [(100.0,) * 4, (200.0,) * 4, (400.0,) * 4]


def test_memory_is_read_after_each_setting_ran_for_the_first_time() -> None:
    points = run(ScriptedFleet(), make_tasks(1, 8)).points.values()
    assert [point.memory_bytes for point in points] == [1001, 1008]


def test_the_planned_time_is_shared_by_settings_and_rounds() -> None:
    fleet = ScriptedFleet()
    run(fleet, make_tasks(1, 2))
    assert {window_s for *_, window_s in fleet.calls} == {0, 1.0}


@pytest.mark.parametrize("error", [InferenceServerException("out of memory"), NotLoadedError("out of memory")])
def test_a_batch_that_fails_is_left_out_and_larger_ones_with_it(error: Exception) -> None:
    outcome = run(ScriptedFleet(errors={4: error}), make_tasks(1, 2, 4, 8))
    assert [point.rows for point in outcome.points.values()] == [1, 2]
    reasons = {task.name: reason for task, reason in outcome.failures.items()}
    assert "out of memory" in reasons["4"]
    assert reasons["8"] == "left out: 4 failed"


def test_batches_larger_than_one_that_takes_too_long_are_not_tried() -> None:
    fleet = ScriptedFleet(latency_ms={2: 1500.0})
    outcome = run(fleet, make_tasks(1, 2, 4))
    assert [point.rows for point in outcome.points.values()] == [1, 2]
    assert list(outcome.failures.values()) == ["left out: 2 already takes 1.5 s"]
    assert 4 not in {rows for _, rows, _ in fleet.calls}


def test_one_that_fails_in_a_later_round_has_no_numbers() -> None:
    fleet = ScriptedFleet()
    tasks = make_tasks(1, 2)
    original: Any = fleet.measure

    def fail_late(candidate: str, streams: tuple[Stream, ...], window_s: float) -> LoadSample:
        if streams[0].rows == 2 and len(fleet.calls) > 8:
            raise InferenceServerException("it went away")
        return cast(LoadSample, original(candidate, streams, window_s))

    fleet.measure = fail_late  # type: ignore[method-assign]
    assert list(run(fleet, tasks).points) == tasks[:1]


def test_progress_names_the_stage_the_round_and_the_rest() -> None:
    says: list[str] = []
    run(ScriptedFleet(), make_tasks(1), says)
    assert says[1] == "texts: round 1 of 4; about 8 s left"
    assert says[-1] == "texts: round 4 of 4; about 2 s left"


def test_starts_take_as_long_as_the_last_one_did() -> None:
    progress = Progress(lambda line: None, measuring_s=10, starts=3)
    progress.started(7)
    assert progress.left_s == 10 + 2 * 7


@pytest.mark.parametrize(
    ("cores", "grid"),
    [
        (1, [(1, 0)]),
        (2, [(1, 0), (1, 1), (2, 1)]),
        (6, [(1, 0), (1, 3), (2, 3), (4, 1)]),
        (64, [(1, 0), (1, 32), (2, 32), (4, 16), (8, 8)]),
    ],
)
def test_instances_share_the_cores(cores: int, grid: list[tuple[int, int]]) -> None:
    assert instance_grid(cores) == grid


def test_batch_sizes_double_up_to_the_largest() -> None:
    assert batch_sizes(1) == [1]
    assert batch_sizes(16) == [1, 2, 4, 8, 16]
    assert batch_sizes(24) == [1, 2, 4, 8, 16, 24]
