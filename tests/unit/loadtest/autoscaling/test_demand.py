"""The day's calls."""

from __future__ import annotations

import numpy as np
import pytest
from lychee_loadtest.autoscaling.demand import HOUR_S, Day, draw_calls, level_by_second

CALM = Day(spikes=0, flash=1.0)


def test_the_curve_has_its_night_its_lunch_and_its_crowd() -> None:
    level, factors = level_by_second(Day(spikes=0), np.random.default_rng(0))
    at = {hour: level[int(hour * HOUR_S)] for hour in (4, 12.5, 16)}
    assert at[4] == pytest.approx(0.5)
    assert at[16] == pytest.approx(2.0, rel=0.01)
    assert at[12.5] > at[16]
    assert factors[20 * HOUR_S - 1] == 1
    assert factors[20 * HOUR_S + 10] == pytest.approx(5)
    assert factors[20 * HOUR_S + 1800] < 1.5


def test_spikes_multiply_the_load_for_minutes() -> None:
    _, factors = level_by_second(Day(flash=1.0), np.random.default_rng(1))
    assert 3 <= factors.max() <= 25  # two may meet
    assert 3 * 120 <= (factors > 2).sum() <= 3 * 520


def test_as_many_documents_come_as_the_level_says() -> None:
    calls = draw_calls(CALM, 100.0, np.random.default_rng(0))
    level, _ = level_by_second(CALM, np.random.default_rng(0))
    assert calls.documents.sum() == pytest.approx(100 * level.sum(), rel=0.01)
    assert calls.documents.mean() == pytest.approx(CALM.mean_documents, rel=0.01)
    assert (np.diff(calls.times_s) >= 0).all()
    assert not calls.sudden.any()


def test_calls_of_a_spike_are_marked() -> None:
    calls = draw_calls(Day(spikes=0), 100.0, np.random.default_rng(0))
    times = calls.times_s[calls.sudden]
    assert 20 * HOUR_S <= times.min() < 20 * HOUR_S + 2
    assert times.max() < 21.5 * HOUR_S


def test_requests_of_a_call_count_batches() -> None:
    assert Day().mean_requests(32) == pytest.approx(0.95 + 0.05 * 4)
    assert Day(large_share=0).mean_requests(10) == pytest.approx(1.5)
