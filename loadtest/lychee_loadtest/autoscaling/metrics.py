"""What the autoscaler gets to see of the replicas: rates over a window of what Prometheus reads every few seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from lychee_loadtest.autoscaling.autoscaler import Measurement
from lychee_loadtest.autoscaling.replica import Counters, Replica

__all__ = ["Goal", "Pipeline", "measure"]

MetricName: TypeAlias = Literal["queue", "plain queue", "cpu", "requests"]


@dataclass(frozen=True, slots=True)
class Goal:
    """A metric and its target: seconds in the queue per request, share of the cores, or requests per second.

    "queue" is the geometric mean of the time in the queue and its target, sqrt(time * target). The autoscaler takes a
    metric for proportional, but where replicas are half busy the time falls with the square of their number.
    """

    metric: MetricName
    target: float


@dataclass(frozen=True, slots=True)
class Pipeline:
    """How old the numbers are on which the autoscaler decides.

    Attributes:
        scrape_s: How often Prometheus reads the replicas, and metrics-server the cores.
        window_s: Over how long `rate()` looks.
        sync_s: How often the autoscaler decides.
    """

    scrape_s: float = 15.0
    window_s: float = 60.0
    sync_s: float = 15.0


def measure(goal: Goal, replicas: Sequence[Replica], now_s: float, pipeline: Pipeline) -> Measurement:
    """Return what the autoscaler is told of a metric.

    The time in the queue is one number for all (`type: External`, `Value`), and Kubernetes multiplies the ready pods by
    it. The others are one for each pod; a pod without two readings in the window has none. The cores come from
    metrics-server, which compares the last two readings, and pods that start are left out of them.
    """
    window_s = 2.5 * pipeline.scrape_s if goal.metric == "cpu" else pipeline.window_s
    windows = []
    for replica in replicas:
        readings = [one for one in replica.history if one.time_s > now_s - window_s]
        if len(readings) >= 2:
            windows.append((readings[-2] if goal.metric == "cpu" else readings[0], readings[-1]))
    without = len(replicas) - len(windows)
    if goal.metric in ("queue", "plain queue"):
        if not windows:
            return Measurement([], goal.target)
        waited_s = _queue(windows)
        value = math.sqrt(waited_s * goal.target) if goal.metric == "queue" else waited_s
        return Measurement([value] * sum(one.is_ready for one in replicas), goal.target)
    if goal.metric == "cpu":
        return Measurement([_cpu(*window) for window in windows], goal.target, unready=without)
    return Measurement([_requests(*window) for window in windows], goal.target, missing=without)


def _queue(windows: Sequence[tuple[Counters, Counters]]) -> float:
    """Return the seconds in the queue per request of all replicas; 0 without requests, as the chart's query has it."""
    requests = sum(last.requests - first.requests for first, last in windows)
    return sum(last.queue_s - first.queue_s for first, last in windows) / requests if requests else 0.0


def _cpu(first: Counters, last: Counters) -> float:
    return (last.busy_s - first.busy_s) / (last.time_s - first.time_s)


def _requests(first: Counters, last: Counters) -> float:
    return (last.requests - first.requests) / (last.time_s - first.time_s)
