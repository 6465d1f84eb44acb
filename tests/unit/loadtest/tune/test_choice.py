"""The rules by which `lychee tune` chooses, and the words in which it says why."""

from __future__ import annotations

import pytest
from lychee_loadtest.tune.choice import Bounds, NoChoiceError, Point, choose, compare
from lychee_loadtest.tune.reasons import explain_batch, explain_other

NO_LIMITS = Bounds()


def make_point(rows: int, *rows_per_s: float, p50: float = 10.0, p99: float | None = None, memory: int = 0) -> Point:
    latencies = (p50, p50, p99 if p99 is not None else p50)
    return Point(str(rows), rows, rows_per_s, latencies, memory)


def make_curve(*medians: float) -> list[Point]:
    """Return points of 1, 2, 4 and so on, all rounds alike, latencies as if batches ran one after another."""
    return [
        make_point(2**power, value, value, value, p50=2**power / value * 1000) for power, value in enumerate(medians)
    ]


def test_the_knee_is_the_smallest_batch_within_five_percent_of_the_best() -> None:
    assert choose(make_curve(50, 80, 90, 96, 100, 100.5), NO_LIMITS).rows == 8


def test_a_batch_that_six_percent_beat_is_not_the_knee() -> None:
    assert choose(make_curve(94, 100), NO_LIMITS).rows == 2


def test_a_flat_curve_keeps_single_documents() -> None:
    assert choose(make_curve(100, 101, 102), NO_LIMITS).rows == 1


def test_a_curve_that_falls_stops_at_its_top() -> None:
    assert choose(make_curve(50, 100, 80, 60), NO_LIMITS).rows == 2


def test_a_difference_that_one_round_contradicts_is_noise() -> None:
    simple, faster = make_point(1, 100, 100, 120), make_point(2, 130, 130, 110)
    assert compare(faster, simple).ratio == pytest.approx(1.3)
    assert choose([simple, faster], NO_LIMITS) is simple


def test_rounds_are_compared_with_the_same_round_though_the_machine_slows_down() -> None:
    simple, faster = make_point(1, 100, 50, 25), make_point(2, 120, 60, 30)
    assert choose([simple, faster], NO_LIMITS) is faster


def test_the_latency_limit_takes_the_largest_throughput_below_it() -> None:
    points = [
        make_point(1, 50, p99=10),
        make_point(2, 80, p99=20),
        make_point(4, 100, p99=40),
        make_point(8, 120, p99=80),
    ]
    assert choose(points, Bounds(latency_ms=40)).rows == 4


def test_the_memory_limit_excludes_a_batch() -> None:
    points = [make_point(1, 50, memory=100), make_point(2, 80, memory=200)]
    assert choose(points, Bounds(memory_bytes=199)).rows == 1


def test_limits_that_nothing_meets_are_an_error_with_the_numbers() -> None:
    with pytest.raises(NoChoiceError, match="1: its p99 of 12 ms is above 5 ms"):
        choose([make_point(1, 50, p99=12)], Bounds(latency_ms=5))


def test_nothing_measured_is_an_error() -> None:
    with pytest.raises(NoChoiceError, match="none could be measured"):
        choose([], NO_LIMITS)


def test_p99_of_few_requests_is_the_slowest_and_of_many_is_not() -> None:
    assert Point("", 1, (1.0,), tuple(range(1, 51))).p99_ms == 50
    assert Point("", 1, (1.0,), tuple(range(1, 1001))).p99_ms == 990


def test_the_reason_names_the_gain_its_price_and_what_the_next_size_adds() -> None:
    points = [make_point(1, 100, p50=10), make_point(8, 190, p50=13), make_point(16, 193.8, p50=30)]
    assert explain_batch(points, points[1], NO_LIMITS) == (
        "8 is 1.9x the throughput of 1 at 1.3x the latency; 16 adds 2 %"
    )


def test_the_reason_says_when_a_difference_is_noise() -> None:
    points = [make_point(1, 100, 100, 100), make_point(2, 102, 98, 103), make_point(4, 80, 80, 80)]
    assert explain_batch(points, points[0], NO_LIMITS) == "1 is enough; 2 adds 2 %, within the noise"


def test_the_reason_says_what_a_limit_excluded() -> None:
    points = [make_point(1, 100, p99=10), make_point(2, 200, p99=30)]
    reason = explain_batch(points, points[0], Bounds(latency_ms=20))
    assert reason.endswith("2 is out: its p99 of 30 ms is above 20 ms")


def test_alternatives_are_compared_with_the_choice() -> None:
    points = [make_point(1, 100), make_point(2, 90), make_point(4, 100)]
    assert explain_other(points, points[0], NO_LIMITS) == "2 loses 10 %; 4 adds nothing"
    assert explain_other(points[:1], points[0], NO_LIMITS) == "nothing else to try on this machine"
