"""Kubernetes' HorizontalPodAutoscaler, `autoscaling/v2`: from what was measured to a number of replicas.

Source: https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/ ("Algorithm details" and
"Configurable scaling behavior"), and for what these leave open pkg/controller/podautoscaler of Kubernetes.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

__all__ = ["KUBERNETES", "Autoscaler", "Behavior", "Limits", "Measurement", "Rule", "Rules", "wanted_replicas"]

TOLERANCE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Rule:
    """How much may change within a period: so many pods, or so many percent of those at its beginning."""

    type: Literal["Pods", "Percent"]
    value: int
    period_s: int


@dataclass(frozen=True, slots=True)
class Rules:
    """One direction of `behavior`: of several rules the one that allows most counts; without any, nothing changes."""

    window_s: int
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Behavior:
    """`behavior`: how fast the number goes up and down."""

    up: Rules
    down: Rules


KUBERNETES: Final = Behavior(
    up=Rules(0, (Rule("Percent", 100, 15), Rule("Pods", 4, 15))), down=Rules(300, (Rule("Percent", 100, 15),))
)
"""What Kubernetes takes where nothing is said."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What is known of one metric: a value for each pod that has one, its target, and how many pods have none.

    Attributes:
        values: One for each pod that is ready and measured.
        target: What the mean is to be.
        missing: How many pods have no value.
        unready: How many pods are not to be counted yet (CPU only).
    """

    values: Sequence[float]
    target: float
    missing: int = 0
    unready: int = 0


Limits: TypeAlias = tuple[int, int]


def wanted_replicas(measured: Measurement, current: int) -> int:
    """Return what one metric asks for: ceil(pods * mean / target), pods without a value counted cautiously."""
    values = list(measured.values)
    if not values:
        return current
    ratio = sum(values) / len(values) / measured.target
    if not measured.missing and not (measured.unready and ratio > 1):
        return current if abs(ratio - 1) <= TOLERANCE else math.ceil(ratio * len(values))
    if ratio < 1:
        values += [measured.target] * measured.missing
    elif ratio > 1:
        values += [0.0] * (measured.missing + measured.unready)
    cautious = sum(values) / len(values) / measured.target
    if abs(cautious - 1) <= TOLERANCE or (ratio < 1) != (cautious < 1):
        return current
    wanted = math.ceil(cautious * len(values))
    return current if (wanted > current) != (cautious > 1) else wanted


class Autoscaler:
    """Turns what the metrics ask for into the number of replicas, with the windows and rules of `behavior`.

    Args:
        limits: Fewest and most replicas.
        behavior: How fast the number changes.
    """

    def __init__(self, limits: Limits, behavior: Behavior) -> None:
        self._limits = limits
        self._behavior = behavior
        self._asked: deque[tuple[float, int]] = deque()
        self._changes: deque[tuple[float, int]] = deque()

    def decide(self, now_s: float, current: int, measurements: Sequence[Measurement]) -> int:
        """Return how many replicas there are to be from now on; of several metrics, the largest number counts."""
        wanted = max(wanted_replicas(measured, current) for measured in measurements)
        stable = self._stabilize(now_s, current, wanted)
        low, high = self._limits
        if stable > current:
            limits = [self._allow(rule, now_s, current, +1) for rule in self._behavior.up.rules]
            stable = min(stable, max([current, *limits]))
        elif stable < current:
            limits = [self._allow(rule, now_s, current, -1) for rule in self._behavior.down.rules]
            stable = max(stable, min([current, *limits]))
        stable = max(low, min(high, stable))
        if stable != current:
            self._changes.append((now_s, stable - current))
        return stable

    def _stabilize(self, now_s: float, current: int, wanted: int) -> int:
        """Go up to the least, and down to the most, that was asked for within the window of the direction."""
        up_s, down_s = self._behavior.up.window_s, self._behavior.down.window_s
        while self._asked and self._asked[0][0] <= now_s - max(up_s, down_s):
            self._asked.popleft()
        least = min([wanted, *(asked for time_s, asked in self._asked if time_s > now_s - up_s)])
        most = max([wanted, *(asked for time_s, asked in self._asked if time_s > now_s - down_s)])
        self._asked.append((now_s, wanted))
        return min(max(current, least), most)

    def _allow(self, rule: Rule, now_s: float, current: int, direction: int) -> int:
        """Return how far a rule lets the number go, from what it was at the beginning of the rule's period."""
        before = current - sum(change for time_s, change in self._changes if time_s > now_s - rule.period_s)
        if rule.type == "Pods":
            return before + direction * rule.value
        exact = before * (1 + direction * rule.value / 100)
        return math.ceil(exact) if direction > 0 else int(exact)
