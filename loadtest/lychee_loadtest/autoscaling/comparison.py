"""Several policies on the same days: what callers see, and what it costs; medians of the days."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np
import numpy.typing as npt
from lychee_server.execution.onnx_sessions import available_cpus

from lychee_loadtest.autoscaling.autoscaler import KUBERNETES, Behavior, Rule, Rules
from lychee_loadtest.autoscaling.demand import Calls, Day, draw_calls
from lychee_loadtest.autoscaling.metrics import Goal
from lychee_loadtest.autoscaling.service import ServiceTimes
from lychee_loadtest.autoscaling.simulation import Cluster, Policy, Run, simulate

__all__ = ["CHART", "TARGETS_MS", "Case", "Figures", "Scenario", "cases", "cheapest", "compare"]

CHART: Final = Behavior(up=KUBERNETES.up, down=Rules(300, (Rule("Pods", 1, 60),)))
"""What the chart sets: its values.yaml says the same."""
TARGETS_MS: Final = (5, 10, 20, 50, 100, 200)
CHART_TARGET_MS: Final = 50
START_UPS_S: Final = (10, 30, 120, 300)
BUSY: Final = 0.7  # of what a replica can do, as its requests per second
MILLION: Final = 1e6


@dataclass(frozen=True, slots=True)
class Scenario:
    """What all cases have in common.

    Attributes:
        service: How long a replica computes.
        day: How the load changes.
        seeds: How many days are drawn and played.
        limit_s: A call that takes longer is slow.
        price: Of one replica for an hour.
    """

    service: ServiceTimes
    day: Day
    seeds: int
    limit_s: float
    price: float


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the comparison."""

    policy: Policy
    cluster: Cluster


@dataclass(frozen=True, slots=True)
class Figures:
    """What came of a case. Shares are of all calls; a refused call counts as endlessly slow.

    Attributes:
        p50_ms, p99_ms: Of all calls.
        calm_p99_ms: Of the calls outside of spikes and the flash crowd.
        slow_share: Calls that took longer than the limit, or were refused.
        failed_share: Calls that were refused.
        replica_hours: How long replicas were there, those that start and those that end included.
        most_replicas: At one time.
        changes: How often their number changed.
        cost: Of a million pairs that were scored.
    """

    p50_ms: float
    p99_ms: float
    calm_p99_ms: float
    slow_share: float
    failed_share: float
    replica_hours: float
    most_replicas: float
    changes: float
    cost: float


def cases(vary: str, cluster: Cluster, targets_ms: Sequence[float], service: ServiceTimes, day: Day) -> list[Case]:
    """Return what to compare: targets, ways to follow them, or times that a replica takes to start.

    Args:
        vary: "target", "behavior" or "start-up".
        cluster: Where the replicas run.
        targets_ms: Of the time in the queue; the last two kinds use the one of the chart.
        service: How long a replica computes.
        day: How the load changes.
    """
    chosen = (Goal("queue", CHART_TARGET_MS / 1e3),)
    if vary == "start-up":
        clusters = {seconds: replace(cluster, start_up_s=seconds) for seconds in START_UPS_S}
        return [Case(Policy(f"start-up {seconds} s", chosen, CHART), slow) for seconds, slow in clusters.items()]
    if vary == "behavior":
        return _behaviors(cluster)
    requests_per_s = BUSY * service.rows_per_s / day.mean_documents * day.mean_requests(service.max_rows)
    policies = [
        *(Policy(f"queue {target:g} ms", (Goal("queue", target / 1e3),), CHART) for target in targets_ms),
        Policy(f"plain {CHART_TARGET_MS} ms", (Goal("plain queue", CHART_TARGET_MS / 1e3),), CHART),
        Policy(f"requests {requests_per_s:.2g}/s", (Goal("requests", requests_per_s),), CHART),
        Policy("CPU 50 %", (Goal("cpu", 0.5),), CHART),
        Policy("CPU 70 %", (Goal("cpu", 0.7),), CHART),
    ]
    return [Case(policy, cluster) for policy in policies]


def _behaviors(cluster: Cluster) -> list[Case]:
    """Return ways to follow the chart's metric, and the same time in the queue as it is."""
    damped, plain = (
        (Goal("queue", CHART_TARGET_MS / 1e3),),
        (Goal("plain queue", CHART_TARGET_MS / 1e3),),
    )
    slower = Behavior(Rules(0, (Rule("Percent", 100, 60), Rule("Pods", 2, 60))), CHART.down)
    tenth = Behavior(CHART.up, Rules(300, (Rule("Percent", 10, 60), Rule("Pods", 1, 60))))
    policies = [
        Policy("the chart's", damped, CHART),
        Policy("up 2 pods or 100 % a minute", damped, slower),
        Policy("down 10 % a minute", damped, tenth),
        Policy("Kubernetes' default", damped, KUBERNETES),
        Policy("plain time, the chart's", plain, CHART),
        Policy("plain time, Kubernetes' default", plain, KUBERNETES),
    ]
    return [Case(policy, cluster) for policy in policies]


def compare(
    scenario: Scenario, chosen: Sequence[Case], *, on_done: Callable[[str], None] = lambda name: None
) -> list[tuple[Case, Figures]]:
    """Play every case on the same days, and return the median of each figure.

    Args:
        scenario: What all cases have in common.
        chosen: The cases.
        on_done: Told of each case that is done.
    """
    jobs = [(scenario, case, seed) for case in chosen for seed in range(scenario.seeds)]
    found: list[Figures] = []
    with ProcessPoolExecutor(max_workers=min(available_cpus(), len(jobs))) as pool:
        for (_, case, seed), figures in zip(jobs, pool.map(_play_one, jobs), strict=True):
            found.append(figures)
            if seed == scenario.seeds - 1:
                on_done(case.policy.name)
    days = [found[place : place + scenario.seeds] for place in range(0, len(found), scenario.seeds)]
    return [(case, _medians(figures)) for case, figures in zip(chosen, days, strict=True)]


def play(scenario: Scenario, case: Case, seed: int) -> tuple[Calls, Run]:
    """Draw a day and play it; the same seed draws the same calls for every case."""
    calls = draw_calls(scenario.day, scenario.service.rows_per_s, np.random.default_rng(seed))
    return calls, simulate(calls, scenario.service, case.cluster, case.policy, seed)


def cheapest(found: Sequence[tuple[Case, Figures]], p99_ms: float) -> tuple[Case, Figures] | None:
    """Return the case of the least cost whose p99 is within the limit; None if there is none."""
    kept = [(case, figures) for case, figures in found if figures.p99_ms <= p99_ms]
    return min(kept, key=lambda pair: pair[1].cost, default=None)


def _play_one(job: tuple[Scenario, Case, int]) -> Figures:
    scenario, case, seed = job
    return summarize(scenario, *play(scenario, case, seed))


def summarize(scenario: Scenario, calls: Calls, run: Run) -> Figures:
    """Return what came of one day with at least one calm call."""
    answered = np.isfinite(run.latencies_s)
    hours = run.replica_s / 3600
    pairs = int(calls.documents[answered].sum())
    return Figures(
        p50_ms=_quantile_ms(run.latencies_s, 0.5),
        p99_ms=_quantile_ms(run.latencies_s, 0.99),
        calm_p99_ms=_quantile_ms(run.latencies_s[~calls.sudden], 0.99),
        slow_share=float((run.latencies_s > scenario.limit_s).mean()),
        failed_share=float(1 - answered.mean()),
        replica_hours=hours,
        most_replicas=max(count for _, count in run.counts),
        changes=len(run.counts) - 1,
        cost=hours * scenario.price * MILLION / pairs,
    )


def _quantile_ms(latencies_s: npt.NDArray[np.float64], share: float) -> float:
    return float(1e3 * np.quantile(latencies_s, share, method="inverted_cdf"))


def _medians(days: Sequence[Figures]) -> Figures:
    return Figures(*(statistics.median(getattr(day, field.name) for day in days) for field in fields(Figures)))
