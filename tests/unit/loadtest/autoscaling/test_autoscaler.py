"""Kubernetes' algorithm, number by number as its documentation and its controller have it."""

from __future__ import annotations

import pytest
from lychee_loadtest.autoscaling.autoscaler import (
    KUBERNETES,
    Autoscaler,
    Behavior,
    Measurement,
    Rule,
    Rules,
    wanted_replicas,
)

FREE = Behavior(Rules(0, (Rule("Pods", 100, 15),)), Rules(0, (Rule("Pods", 100, 15),)))


def mean(value: float, pods: int, target: float = 100.0) -> Measurement:
    return Measurement([value] * pods, target)


@pytest.mark.parametrize(
    ("value", "pods", "wanted"),
    [
        (200, 1, 2),  # "if the current metric value is 200m, and the desired value is 100m, the replicas are doubled"
        (50, 2, 1),
        (105, 4, 4),  # within the tolerance of 10 %
        (90, 4, 4),
        (111, 4, 5),
        (120, 3, 4),  # rounded up
        (0, 5, 0),
    ],
)
def test_replicas_follow_the_ratio_of_metric_and_target(value: float, pods: int, wanted: int) -> None:
    assert wanted_replicas(mean(value, pods), pods) == wanted


@pytest.mark.parametrize(
    ("values", "missing", "wanted"),
    [
        ([300, 300], 2, 6),  # up: without a value counts as 0: (300 + 300) / 4 = 150, of 4 pods
        ([150, 150], 2, 4),  # 75 would be down: the direction turns, so nothing changes
        ([20, 20], 2, 3),  # down: counts as the target: 60 of 4 pods
        ([], 3, 4),  # nothing is known
    ],
)
def test_pods_without_a_value_are_counted_against_the_change(values: list[float], missing: int, wanted: int) -> None:
    assert wanted_replicas(Measurement(values, 100.0, missing), 4) == wanted


def test_pods_that_start_slow_the_way_up_and_not_the_way_down() -> None:
    assert wanted_replicas(Measurement([300, 300], 100.0, unready=2), 4) == 6
    assert wanted_replicas(Measurement([20, 20], 100.0, unready=2), 4) == 1


def test_the_largest_of_several_metrics_counts() -> None:
    scaler = Autoscaler((1, 50), FREE)
    assert scaler.decide(0, 4, [mean(50, 4), mean(200, 4)]) == 8


def test_the_way_up_is_limited_by_the_rule_that_allows_most() -> None:
    scaler = Autoscaler((1, 50), KUBERNETES)
    assert scaler.decide(0, 2, [mean(10_000, 2)]) == 6  # 4 pods are more than 100 %
    assert scaler.decide(7, 6, [mean(10_000, 6)]) == 6  # within 15 s of the last
    assert scaler.decide(15, 6, [mean(10_000, 6)]) == 12  # 100 % are more than 4 pods
    assert scaler.decide(30, 12, [mean(10_000, 12)]) == 24
    assert scaler.decide(45, 24, [mean(10_000, 24)]) == 48
    assert scaler.decide(60, 48, [mean(10_000, 48)]) == 50  # the most there may be


def test_the_way_down_waits_for_the_largest_of_the_window() -> None:
    scaler = Autoscaler((2, 50), KUBERNETES)
    assert scaler.decide(0, 10, [mean(100, 10)]) == 10
    for now_s in range(15, 300, 15):
        assert scaler.decide(now_s, 10, [mean(10, 10)]) == 10
    assert scaler.decide(300, 10, [mean(10, 10)]) == 2


def test_a_rule_of_pods_takes_one_at_a_time() -> None:
    scaler = Autoscaler((1, 50), Behavior(FREE.up, Rules(0, (Rule("Pods", 1, 60),))))
    counts = [10]
    for now_s in range(0, 180, 15):
        counts.append(scaler.decide(now_s, counts[-1], [mean(0, counts[-1])]))
    assert counts == [10, 9, 9, 9, 9, 8, 8, 8, 8, 7, 7, 7, 7]


def test_a_window_on_the_way_up_waits_for_the_least() -> None:
    scaler = Autoscaler((1, 50), Behavior(Rules(30, FREE.up.rules), FREE.down))
    assert scaler.decide(0, 4, [mean(100, 4)]) == 4
    assert scaler.decide(15, 4, [mean(400, 4)]) == 4
    assert scaler.decide(30, 4, [mean(400, 4)]) == 16


def test_without_rules_a_direction_is_closed() -> None:
    scaler = Autoscaler((1, 50), Behavior(FREE.up, Rules(0, ())))
    assert scaler.decide(0, 10, [mean(0, 10)]) == 10


def test_percent_are_rounded_up_on_the_way_up_and_down_on_the_way_down() -> None:
    half = Rules(0, (Rule("Percent", 50, 15),))
    assert Autoscaler((1, 50), Behavior(half, half)).decide(0, 3, [mean(10_000, 3)]) == 5
    assert Autoscaler((1, 50), Behavior(half, half)).decide(0, 3, [mean(0, 3)]) == 1
