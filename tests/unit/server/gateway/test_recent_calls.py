"""Rates, latencies and the queue of the last quarter of an hour."""

from __future__ import annotations

import pytest
from lychee_server.gateway.recent_calls import SLOT_S, SLOTS, RecentCalls


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_rates_and_percentiles_are_those_of_the_last_minute(clock: Clock) -> None:
    recent = RecentCalls(clock)
    for number in range(5000):
        recent.add(1.0 if number < 4000 else 0.01)
        recent.add_documents(2)
        clock.now_s += 0.1
    summary = recent.summary()
    assert summary.calls_per_s == pytest.approx(10, rel=0.05)
    assert summary.documents_per_s == pytest.approx(20, rel=0.05)
    assert summary.p99_ms == pytest.approx(10, rel=0.02)
    clock.now_s += 120
    assert (recent.summary().calls_per_s, recent.summary().p50_ms) == (0, None)


@pytest.mark.parametrize("milliseconds", [0.5, 7.0, 123.0, 60_000.0])
def test_percentiles_are_within_a_hundredth_of_the_latency(clock: Clock, milliseconds: float) -> None:
    recent = RecentCalls(clock)
    for _ in range(100):
        recent.add(milliseconds / 1e3)
    assert recent.summary().p50_ms == pytest.approx(milliseconds, rel=0.015)


def test_series_has_what_happened_in_each_step_and_nothing_before_the_gateway_was_there(clock: Clock) -> None:
    recent = RecentCalls(clock)
    recent.add(0.02)
    recent.note_queue(3, 1)
    recent.note_queue(2, 5)
    clock.now_s += SLOT_S
    recent.add_documents(10)
    clock.now_s += 2 * SLOT_S
    series = recent.series()
    assert {len(values) for values in (series.calls_per_s, series.p50_ms, series.waiting)} == {SLOTS}
    assert series.calls_per_s[-4:] == (None, 1 / SLOT_S, 0, 0)
    assert series.documents_per_s[-4:] == (None, 0, 10 / SLOT_S, 0)
    assert series.p99_ms[-3:] == (pytest.approx(20, rel=0.02), None, None)
    assert (series.running[-3:], series.waiting[-3:]) == ((3, 0, 0), (5, 0, 0))


def test_memory_is_bounded_however_long_it_runs(clock: Clock) -> None:
    recent = RecentCalls(clock)
    for number in range(20_000):
        recent.add(10 ** (number % 60 / 10 - 4))
        clock.now_s += 0.1 if number % 2 else 0.3
    assert len(recent._slots) == SLOTS + 1
    assert max(len(slot.latencies) for slot in recent._slots) <= 60
    clock.now_s += 3600
    assert set(recent.series().calls_per_s) == {0}
