"""Latencies as a histogram."""

from __future__ import annotations

import json
import random

import pytest
from lychee_loadtest.locust.latencies import Latencies


def collect(values: list[float]) -> Latencies:
    latencies = Latencies()
    for value in values:
        latencies.add(value)
    return latencies


@pytest.mark.parametrize("percent", [50, 90, 99, 100])
def test_percentile_is_at_most_one_per_cent_too_high(percent: float) -> None:
    draw = random.Random(0)
    values = sorted(draw.lognormvariate(4, 1.5) for _ in range(1000))
    exact = values[int(percent / 100 * len(values)) - 1]
    measured = collect(values).percentile_ms(percent)
    assert measured is not None
    assert exact <= measured * (1 + 1e-9)
    assert measured <= exact * 1.01 * (1 + 1e-9)


def test_percentile_never_exceeds_the_longest_latency() -> None:
    assert collect([123.456]).percentile_ms(50) == 123.456


def test_no_latencies_have_no_percentile() -> None:
    assert Latencies().percentile_ms(50) is None
    assert Latencies().max_ms is None


def test_a_latency_of_nothing_counts() -> None:
    assert len(collect([0.0, 1e-9])) == 2


def test_histograms_of_two_processes_add_up() -> None:
    left, right = collect([1.0, 2.0, 3.0]), collect([1000.0])
    sent = json.loads(json.dumps(right.pack()))
    left.merge(Latencies.unpack(*sent))
    both = collect([1.0, 2.0, 3.0, 1000.0])
    assert left.pack() == both.pack()
    assert left.percentile_ms(100) == 1000.0
