"""The event loop against closed forms of queueing theory, and against itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from lychee_loadtest.autoscaling.autoscaler import KUBERNETES
from lychee_loadtest.autoscaling.comparison import CHART
from lychee_loadtest.autoscaling.demand import Calls, Day, draw_calls
from lychee_loadtest.autoscaling.metrics import Goal
from lychee_loadtest.autoscaling.service import ServiceTimes
from lychee_loadtest.autoscaling.simulation import Cluster, Policy, Run, simulate

FIXED = Policy("fixed", (), KUBERNETES)
COUNT = 60_000
ENDLESS = 10**9
QUICK = ServiceTimes("test", (1, 8), (0.02, 0.08))
DAY = Day(duration_s=3600, spikes=2)


class Exponential(ServiceTimes):
    """Times as M/M/c has them."""

    def scatter(self, count: int, rng: np.random.Generator) -> list[float]:
        return [float(factor) for factor in rng.exponential(size=count)]


def poisson_calls(rate: float, seed: int = 3) -> Calls:
    times = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, COUNT))
    return Calls(times, np.ones(COUNT, np.int64), np.zeros(COUNT, np.bool_))


def play(calls: Calls, service: ServiceTimes, replicas: int = 1, queue_limit: int = ENDLESS) -> Run:
    return simulate(calls, service, Cluster(replicas, replicas, queue_limit=queue_limit), FIXED)


def erlang_c(servers: int, load: float) -> float:
    """Return the probability that a call has to wait in M/M/c."""
    terms = [1.0]
    for number in range(1, servers + 1):
        terms.append(terms[-1] * load / number)
    last = terms[-1] * servers / (servers - load)
    return last / (sum(terms[:-1]) + last)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.8])
def test_one_replica_waits_like_m_d_1(share: float) -> None:
    service = ServiceTimes("test", (1,), (0.05,))
    waited = play(poisson_calls(share / 0.05), service).queue_s.mean()
    assert waited == pytest.approx(share * 0.05 / (2 * (1 - share)), rel=0.06)


@pytest.mark.parametrize(("servers", "share"), [(1, 0.6), (4, 0.7)])
def test_several_instances_wait_like_m_m_c(servers: int, share: float) -> None:
    service = Exponential("test", (1,), (0.05,), instances=servers)
    waited = play(poisson_calls(share * servers / 0.05), service).queue_s.mean()
    load = share * servers
    assert waited == pytest.approx(erlang_c(servers, load) * 0.05 / (servers - load), rel=0.08)


def test_noise_leaves_the_mean_of_the_service_time() -> None:
    calls = Calls(np.arange(COUNT) * 1.0, np.ones(COUNT, np.int64), np.zeros(COUNT, np.bool_))
    latencies = play(calls, ServiceTimes("test", (1,), (0.05,), sigma=0.3)).latencies_s
    assert latencies.mean() == pytest.approx(0.05, rel=0.01)
    assert np.log(latencies).std() == pytest.approx(0.3, rel=0.02)


def test_what_waits_is_merged_into_one_batch() -> None:
    calls = Calls(np.array([0.0, 0.001, 0.002, 0.003]), np.array([1, 1, 2, 5]), np.zeros(4, np.bool_))
    latencies = play(calls, ServiceTimes("test", (1, 8), (0.01, 0.08))).latencies_s
    # The first runs alone until 0.01; then 1 + 2 + 5 rows take 0.08.
    assert latencies.tolist() == pytest.approx([0.01, 0.089, 0.088, 0.087])


def test_a_call_larger_than_a_batch_ends_with_its_last_part() -> None:
    calls = Calls(np.array([0.0]), np.array([20]), np.zeros(1, np.bool_))
    run = play(calls, ServiceTimes("test", (1, 8), (0.01, 0.08)))
    assert run.latencies_s.tolist() == pytest.approx([0.08 + 0.08 + 0.04])
    assert len(run.queue_s) == 3


@pytest.mark.parametrize("limit", [3, ENDLESS])
@pytest.mark.parametrize("goal", [Goal("queue", 0.05), Goal("cpu", 0.6), Goal("requests", 3.0)])
def test_every_call_ends_once_whatever_the_replicas_do(goal: Goal, limit: int) -> None:
    calls = draw_calls(DAY, QUICK.rows_per_s, np.random.default_rng(1))
    run = simulate(calls, QUICK, Cluster(queue_limit=limit), Policy("test", (goal,), KUBERNETES), 1)
    answered = np.isfinite(run.latencies_s)
    assert (run.latencies_s > 0).all()
    assert answered.all() == (limit == ENDLESS)
    parts = -(-calls.documents // QUICK.max_rows)
    assert parts[answered].sum() <= len(run.queue_s) <= parts.sum()
    counts = [count for _, count in run.counts]
    assert len(counts) > 2
    assert all(2 <= count <= 20 for count in counts)


def test_replica_hours_are_those_of_the_counts() -> None:
    calls = draw_calls(DAY, QUICK.rows_per_s, np.random.default_rng(1))
    run = simulate(calls, QUICK, Cluster(), Policy("test", (Goal("queue", 0.05),), CHART), 1)
    times = [*(time_s for time_s, _ in run.counts), calls.times_s[-1]]
    counted = sum(count * (after - before) for (before, count), after in zip(run.counts, times[1:], strict=True))
    # Replicas that leave stay until they have finished what they had.
    assert counted <= run.replica_s <= 1.01 * counted


def test_the_same_seed_plays_the_same_day() -> None:
    def run(seed: int) -> Any:
        calls = draw_calls(DAY, QUICK.rows_per_s, np.random.default_rng(seed))
        return simulate(calls, QUICK, Cluster(), Policy("test", (Goal("queue", 0.05),), CHART), seed)

    one, same, other = run(1), run(1), run(2)
    assert (one.latencies_s == same.latencies_s).all()
    assert one.counts == same.counts != other.counts


def test_a_replica_takes_no_call_before_it_has_started() -> None:
    calls = poisson_calls(100.0)  # a replica can do 50 in a second one by one, 100 in batches
    calls = Calls(calls.times_s[:12_000], calls.documents[:12_000], calls.sudden[:12_000])
    policy = Policy("test", (Goal("queue", 0.01),), KUBERNETES)
    slow, quick = (
        simulate(calls, QUICK, Cluster(1, 4, start_up_s=start_up_s, queue_limit=ENDLESS), policy).latencies_s
        for start_up_s in (60.0, 0.0)
    )
    early = calls.times_s < 60
    assert slow[early].mean() > 2 * quick[early].mean()


def test_more_load_than_a_replica_can_do_is_refused_at_the_limit() -> None:
    run = play(poisson_calls(200.0), ServiceTimes("test", (1,), (0.01,)), queue_limit=10)
    refused = np.isinf(run.latencies_s).mean()
    assert refused == pytest.approx(0.5, abs=0.02)
    assert run.queue_s.max() <= 0.1 + 1e-9
