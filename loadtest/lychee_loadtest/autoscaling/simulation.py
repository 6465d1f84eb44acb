"""The event loop: calls come, replicas compute, Prometheus reads, the autoscaler decides.

A plain loop over a heap: nothing in it waits for two things at once, so a library's processes would only make each of
millions of events slower.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lychee_loadtest.autoscaling.autoscaler import Autoscaler, Behavior
from lychee_loadtest.autoscaling.demand import Calls
from lychee_loadtest.autoscaling.metrics import Goal, Pipeline, measure
from lychee_loadtest.autoscaling.replica import Replica, Request
from lychee_loadtest.autoscaling.service import ServiceTimes

__all__ = ["Cluster", "Policy", "Run", "simulate"]

SCATTER: Final = 10_000  # factors drawn beforehand
_FINISH, _READY, _SCRAPE, _SYNC = range(4)


@dataclass(frozen=True, slots=True)
class Policy:
    """What the autoscaler is told; without goals it changes nothing."""

    name: str
    goals: tuple[Goal, ...]
    behavior: Behavior


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where the replicas run.

    Attributes:
        min_replicas, max_replicas: Fewest and most; it begins with the fewest.
        start_up_s: From the decision until a replica takes calls: node, image, models, golden pairs, readiness.
        queue_limit: How many requests may wait at one replica; the rest are refused.
        pipeline: How old the numbers are on which the autoscaler decides.
    """

    min_replicas: int = 2
    max_replicas: int = 20
    start_up_s: float = 30.0
    queue_limit: int = 64
    pipeline: Pipeline = field(default_factory=Pipeline)


@dataclass(frozen=True, slots=True)
class Run:
    """What became of the calls.

    Attributes:
        latencies_s: Of each call, in the order of arrival; infinite where it was refused.
        queue_s: How long each request waited that was answered.
        replica_s: How many seconds all replicas were there, in all.
        counts: Times of changes, and how many replicas there were from then on.
    """

    latencies_s: npt.NDArray[np.float64]
    queue_s: npt.NDArray[np.float64]
    replica_s: float
    counts: list[tuple[float, int]]


def simulate(calls: Calls, service: ServiceTimes, cluster: Cluster, policy: Policy, seed: int = 0) -> Run:
    """Play the calls against replicas that the policy adds and removes.

    A call's requests go to the less busy one of two replicas drawn at random: each caller knows only its own part.
    """
    return _Simulation(calls, service, cluster, policy, seed).run()


class _Simulation:
    def __init__(self, calls: Calls, service: ServiceTimes, cluster: Cluster, policy: Policy, seed: int) -> None:
        self._calls = calls
        self._seconds = service.by_rows()
        self._service = service
        self._cluster = cluster
        self._policy = policy
        self._random = random.Random(seed)
        self._scatter = service.scatter(SCATTER, np.random.default_rng(seed))
        self._autoscaler = Autoscaler((cluster.min_replicas, cluster.max_replicas), policy.behavior)
        self._events: list[tuple[float, int, int, Any]] = []
        self._number = 0
        self._replicas: list[Replica] = []  # those that Kubernetes counts
        self._ready: list[Replica] = []
        self._latencies = [0.0] * len(calls.times_s)
        self._parts = [0] * len(calls.times_s)
        self._queue_s: list[float] = []
        self._replica_s = 0.0
        self._counts: list[tuple[float, int]] = []

    def run(self) -> Run:
        pipeline, times = self._cluster.pipeline, self._calls.times_s.tolist()
        for _ in range(self._cluster.min_replicas):
            replica = self._add(0.0)
            self._make_ready(replica)
        self._counts.append((0.0, len(self._replicas)))
        if self._policy.goals:
            self._plan(self._random.uniform(0, pipeline.scrape_s), _SCRAPE, None)
            self._plan(pipeline.sync_s, _SYNC, None)
        documents = self._calls.documents.tolist()
        end_s = times[-1] if times else 0.0
        place, left = 0, len(times)
        handlers: tuple[Callable[[Any], None], ...] = (self._finish, self._make_ready, self._scrape, self._sync)
        while self._events or place < left:
            if place < left and (not self._events or times[place] <= self._events[0][0]):
                self._arrive(place, times[place], documents[place])
                place += 1
                continue
            now_s, _, kind, what = heapq.heappop(self._events)
            if kind in (_SCRAPE, _SYNC) and now_s > end_s:
                continue
            self._now_s = now_s
            handlers[kind](what)
        for replica in self._replicas:
            self._replica_s += end_s - replica.started_s
        return Run(np.array(self._latencies), np.array(self._queue_s), self._replica_s, self._counts)

    def _plan(self, time_s: float, kind: int, what: Any) -> None:
        self._number += 1
        heapq.heappush(self._events, (time_s, self._number, kind, what))

    def _arrive(self, call: int, now_s: float, documents: int) -> None:
        largest = self._service.max_rows
        while documents > 0:
            rows = min(documents, largest)
            documents -= rows
            replica = self._choose()
            if len(replica.waiting) >= self._cluster.queue_limit:
                self._latencies[call] = float("inf")
                return
            self._parts[call] += 1
            replica.add((call, now_s, rows))
            if replica.running < replica.instances:
                self._begin(replica, now_s)

    def _choose(self) -> Replica:
        ready = self._ready
        one = ready[int(self._random.random() * len(ready))]
        two = ready[int(self._random.random() * len(ready))]
        return one if one.rows <= two.rows else two

    def _begin(self, replica: Replica, now_s: float) -> None:
        batch, rows = replica.begin()
        if batch:
            seconds = self._seconds[rows] * self._scatter[int(self._random.random() * SCATTER)]
            self._number += 1
            heapq.heappush(self._events, (now_s + seconds, self._number, _FINISH, (replica, batch, now_s)))

    def _finish(self, what: tuple[Replica, list[Request], float]) -> None:
        replica, batch, begun_s = what
        replica.finish(batch, begun_s, self._now_s)
        parts, latencies = self._parts, self._latencies
        for call, arrived_s, _ in batch:
            self._queue_s.append(begun_s - arrived_s)
            parts[call] -= 1
            if not parts[call] and not latencies[call]:  # refused calls are endless already
                latencies[call] = self._now_s - arrived_s
        if replica.waiting:
            self._begin(replica, self._now_s)
        if replica.is_leaving and not replica.rows:
            self._replica_s += self._now_s - replica.started_s

    def _add(self, now_s: float) -> Replica:
        replica = Replica(self._service.instances, self._service.max_rows, now_s)
        self._replicas.append(replica)
        return replica

    def _make_ready(self, replica: Replica) -> None:
        if not replica.is_leaving:
            replica.is_ready = True
            self._ready.append(replica)

    def _scrape(self, _what: None) -> None:
        pipeline = self._cluster.pipeline
        for replica in self._ready:
            replica.scrape(self._now_s, pipeline.window_s)
        self._plan(self._now_s + pipeline.scrape_s, _SCRAPE, None)

    def _sync(self, _what: None) -> None:
        pipeline, now_s = self._cluster.pipeline, self._now_s
        self._plan(now_s + pipeline.sync_s, _SYNC, None)
        measured = [measure(goal, self._replicas, now_s, pipeline) for goal in self._policy.goals]
        current = len(self._replicas)
        wanted = self._autoscaler.decide(now_s, current, measured)
        for _ in range(wanted - current):
            self._plan(now_s + self._cluster.start_up_s, _READY, self._add(now_s))
        for _ in range(current - wanted):
            self._remove(now_s)
        if wanted != current:
            self._counts.append((now_s, wanted))

    def _remove(self, now_s: float) -> None:
        """Let the youngest replica finish what it has and go; those that are not ready go first."""
        replica = next((one for one in reversed(self._replicas) if not one.is_ready), self._replicas[-1])
        self._replicas.remove(replica)
        replica.is_leaving = True
        if replica.is_ready:
            self._ready.remove(replica)
        if not replica.rows:
            self._replica_s += now_s - replica.started_s
