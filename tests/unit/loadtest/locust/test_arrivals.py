"""Calls that arrive whether or not the server keeps up."""

from __future__ import annotations

import itertools
import random
import statistics
import time
from collections.abc import Iterator

import gevent
import pytest
from gevent.event import Event
from lychee_loadtest.locust.arrivals import ArrivalCounts, Arrivals, draw_arrival_times
from lychee_loadtest.locust.shapes import Stage, plan_shape
from lychee_loadtest.locust.workload import Call, Document

CALL = Call("interactive", "text", "a cat", (Document("a cup"),))
WAIT_S = 10.0


def test_arrivals_are_a_poisson_process_of_the_stated_rate() -> None:
    times = list(draw_arrival_times(50.0, (Stage(400.0, 1.0),), random.Random(0)))
    gaps = [after - before for before, after in itertools.pairwise(times)]
    # 20,000 are expected, with a standard deviation of 141; exponential gaps deviate by as much as their mean.
    assert abs(len(times) - 20_000) < 4 * 141
    assert statistics.stdev(gaps) == pytest.approx(statistics.mean(gaps), rel=0.03)
    assert times == sorted(times)
    assert times[-1] < 400.0


def test_rate_of_arrivals_follows_the_shape() -> None:
    times = list(draw_arrival_times(100.0, plan_shape("step", 300.0, 3), random.Random(1)))
    counts = [sum(begin <= time_s < begin + 100 for time_s in times) for begin in (0, 100, 200)]
    for count, expected in zip(counts, (3333, 6667, 10_000), strict=True):
        assert abs(count - expected) < 4 * expected**0.5


def test_same_seed_gives_the_same_arrivals() -> None:
    stages = plan_shape("spike", 50.0, 1)
    first, again, other = (list(draw_arrival_times(9.0, stages, random.Random(seed))) for seed in (7, 7, 8))
    assert first == again != other


def forever(times_s: list[float]) -> Iterator[float]:
    yield from times_s
    while True:
        yield 1e6


def test_a_stalled_server_is_not_hidden() -> None:
    """One user, whose first call does not end: the calls behind it count from the time at which they were to begin."""
    arrivals = Arrivals(forever([0.3, 0.301, 0.302]), lambda: CALL)
    stalled, over = Event(), Event()
    waits_s = []

    def be_a_user() -> None:
        arrivals.take()
        stalled.wait(WAIT_S)
        while (arrival := arrivals.take()) is not None:
            waits_s.append(time.perf_counter() - arrival.intended_s)
            if len(waits_s) == 2:
                over.set()

    user = gevent.spawn(be_a_user)
    gevent.sleep(0)
    arrivals.start()
    while arrivals.counts.count < 3:
        gevent.sleep(0.001)
    noticed_at_s = time.perf_counter()
    gevent.sleep(0.05)
    stall_s = time.perf_counter() - noticed_at_s
    stalled.set()
    assert over.wait(WAIT_S)
    arrivals.stop()
    user.join(WAIT_S)
    assert user.successful()
    assert min(waits_s) >= stall_s
    assert arrivals.counts.waited == 2
    assert arrivals.counts.unserved == 0


def test_arrivals_that_find_a_free_user_have_not_waited() -> None:
    arrivals = Arrivals(forever([0.3, 0.31]), lambda: CALL)
    users = [gevent.spawn(arrivals.take) for _ in range(3)]
    gevent.sleep(0)
    arrivals.start()
    done = gevent.joinall(users, timeout=WAIT_S, count=2)
    arrivals.stop()
    gevent.joinall(users, timeout=WAIT_S, raise_error=True)
    assert len(done) == 2
    assert sorted(user.value is None for user in users) == [False, False, True]
    assert (arrivals.counts.count, arrivals.counts.waited, arrivals.counts.unserved) == (2, 0, 0)
    assert len(arrivals.counts.lateness) == 2


def test_what_nobody_took_is_unserved() -> None:
    arrivals = Arrivals(forever([0.3] * 5), lambda: CALL)
    arrivals.start()
    while arrivals.counts.count < 5:
        gevent.sleep(0.001)
    arrivals.stop()
    assert (arrivals.counts.waited, arrivals.counts.unserved) == (5, 5)
    assert arrivals.take() is None


def test_counts_of_two_processes_add_up() -> None:
    counts = ArrivalCounts(3, 2, 1)
    counts.lateness.add(5.0)
    total = ArrivalCounts(1, 1, 1)
    total.merge(ArrivalCounts.unpack(*counts.pack()))
    assert (total.count, total.waited, total.unserved, total.lateness.max_ms) == (4, 3, 2, 5.0)


def test_calls_whose_time_was_over_before_the_users_came_do_not_count() -> None:
    arrivals = Arrivals(forever([0.0, 0.0, 0.3]), lambda: CALL)
    gevent.sleep(0.01)
    arrivals.start()
    assert arrivals.take() is not None
    arrivals.stop()
    assert arrivals.counts.count == 1


def test_a_late_generator_is_measured_and_its_calls_count_from_their_time() -> None:
    time_s, delay_s = 0.2, 0.4

    def make_slowly() -> Call:
        time.sleep(delay_s)
        return CALL

    before_s = time.perf_counter()
    arrivals = Arrivals(forever([time_s]), make_slowly)
    after_s = time.perf_counter()
    arrivals.start()
    arrival = arrivals.take()
    arrivals.stop()
    assert arrival is not None
    assert before_s + time_s <= arrival.intended_s <= after_s + time_s
    assert arrivals.counts.lateness.max_ms is not None
    assert arrivals.counts.lateness.max_ms >= 1e3 * (delay_s - time_s) - 1
