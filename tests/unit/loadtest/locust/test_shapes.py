"""How the load changes over a run."""

from __future__ import annotations

import pytest
from lychee_loadtest.locust.shapes import SHAPES, level_at, plan_shape


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_reaches_the_full_load_and_ends_with_the_run(name: str) -> None:
    stages = plan_shape(name, 100.0, 5)
    assert max(stage.level for stage in stages) == 1.0
    assert min(stage.level for stage in stages) > 0
    ends = [stage.end_s for stage in stages]
    assert ends == sorted(set(ends))
    assert ends[-1] == pytest.approx(100.0)
    assert level_at(stages, 100.0) == 0.0


def test_steps_are_equal() -> None:
    stages = plan_shape("step", 60.0, 3)
    assert [(stage.end_s, pytest.approx(stage.level)) for stage in stages] == [(20, 1 / 3), (40, 2 / 3), (60, 1)]
    assert [level_at(stages, time_s) for time_s in (0.0, 19.9, 20.0)] == pytest.approx([1 / 3, 1 / 3, 2 / 3])


def test_spike_returns_to_where_it_came_from() -> None:
    stages = plan_shape("spike", 10.0, 1)
    before, during, after = (level_at(stages, time_s) for time_s in (1.0, 5.0, 9.0))
    assert during == 1.0
    assert before == after < during


def test_soak_is_at_full_load_nearly_all_the_time() -> None:
    stages = plan_shape("soak", 1000.0, 1)
    assert level_at(stages, 0.0) < 1.0
    assert level_at(stages, 100.0) == level_at(stages, 999.0) == 1.0


@pytest.mark.parametrize(("run_time_s", "steps"), [(0.0, 5), (10.0, 0)])
def test_a_run_without_time_or_steps_is_refused(run_time_s: float, steps: int) -> None:
    with pytest.raises(ValueError, match="expected more than 0 s and at least 1 step"):
        plan_shape("step", run_time_s, steps)
