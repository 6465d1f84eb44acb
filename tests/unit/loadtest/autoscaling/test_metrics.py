"""What the autoscaler sees of a replica."""

from __future__ import annotations

import pytest
from lychee_loadtest.autoscaling.metrics import Goal, Pipeline, measure
from lychee_loadtest.autoscaling.replica import Replica

PIPELINE = Pipeline(scrape_s=15, window_s=60)


def worked(*waits_s: float, scrapes: int = 3) -> Replica:
    """Return a replica that computed one request of a second in each interval of 15 s, after it had waited so long."""
    replica = Replica(1, 8, 0.0, is_ready=True)
    replica.scrape(0.0, 60)
    for number, wait_s in enumerate(waits_s[: scrapes - 1]):
        begun_s = 15 * number + 10.0
        replica.add((number, begun_s - wait_s, 1))
        replica.finish(replica.begin()[0], begun_s, begun_s + 1)
        replica.scrape(15.0 * (number + 1), 60)
    return replica


def test_the_time_in_the_queue_is_that_of_the_requests_in_the_window() -> None:
    replica = worked(0.1, 0.3, 0.5, 0.7, 0.9, scrapes=6)  # read at 0, 15, ... 75
    # The window reaches back to 15 s and leaves that reading out: what came after 30 s counts.
    assert list(measure(Goal("plain queue", 1), [replica], 75.0, PIPELINE).values) == pytest.approx(
        [(0.5 + 0.7 + 0.9) / 3]
    )
    assert list(measure(Goal("plain queue", 1), [replica], 95.0, PIPELINE).values) == pytest.approx([(0.7 + 0.9) / 2])


def test_rates_are_per_second_and_cores_those_of_the_last_reading() -> None:
    replica = worked(0.1, 0.1)
    assert list(measure(Goal("requests", 1), [replica], 31.0, PIPELINE).values) == pytest.approx([1 / 15])
    assert list(measure(Goal("cpu", 1), [replica], 31.0, PIPELINE).values) == pytest.approx([1 / 15])


def test_an_idle_replica_has_no_queue_and_one_that_starts_does_not_count() -> None:
    idle, starting = Replica(1, 8, 0.0, is_ready=True), Replica(1, 8, 0.0)
    for now_s in (0.0, 15.0):
        idle.scrape(now_s, 60)
    found = measure(Goal("plain queue", 1), [idle, starting], 20.0, PIPELINE)
    assert (list(found.values), found.missing, found.unready) == ([0.0], 0, 0)
    found = measure(Goal("requests", 1), [idle, starting], 20.0, PIPELINE)
    assert (list(found.values), found.missing, found.unready) == ([0.0], 1, 0)
    found = measure(Goal("cpu", 1), [idle, starting], 20.0, PIPELINE)
    assert (list(found.values), found.missing, found.unready) == ([0.0], 0, 1)


def test_the_queue_is_weighted_by_requests_and_unknown_before_two_readings() -> None:
    found = measure(Goal("plain queue", 1), [worked(0.1, 0.2, 0.3, scrapes=4), worked(0.6)], 46.0, PIPELINE)
    assert list(found.values) == pytest.approx([(0.1 + 0.2 + 0.3 + 0.6) / 4] * 2)
    assert list(measure(Goal("plain queue", 1), [worked(scrapes=1)], 1.0, PIPELINE).values) == []


def test_the_metric_of_the_chart_is_half_as_far_from_its_target_on_a_logarithmic_scale() -> None:
    for waited_s, seen_s in ((0.2, 0.1), (0.05, 0.05), (0.0125, 0.025)):
        found = measure(Goal("queue", 0.05), [worked(waited_s)], 16.0, PIPELINE)
        assert list(found.values) == pytest.approx([seen_s])
