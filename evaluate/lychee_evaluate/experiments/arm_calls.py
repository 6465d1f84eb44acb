"""The calls of an experiment's arms: what was decided, how long it took, and what failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lychee_evaluate.experiments.estimates import LATENCY_QUANTILES, Estimate, quantiles_of, share_of


@dataclass(slots=True)
class ArmCalls:
    """What was read of one arm's calls.

    Attributes:
        latency_ms: Of each call that was answered and whose time is known.
        decisions: How many documents had each decision.
        calls: How many calls were answered.
        with_accept: In how many of them at least one document was accepted.
        fallbacks: Calls that the control's model answered, by reason.
        failures: Calls that nobody answered, by error.
        models: Who answered, by name and version.
    """

    latency_ms: list[float] = field(default_factory=list)
    decisions: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    with_accept: int = 0
    fallbacks: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)

    def add(self, record: Mapping[str, Any]) -> None:
        """Count the record of a decision."""
        self.calls += 1
        found = [str(result.get("decision")) for result in record.get("results", ()) if isinstance(result, dict)]
        self.decisions.update(found)
        self.with_accept += "accept" in found
        if isinstance(taken := record.get("latency_ms"), (int, float)):
            self.latency_ms.append(float(taken))
        if (reason := record.get("fallback")) is not None:
            self.fallbacks[str(reason)] += 1
        if (name := record.get("served")) is not None:
            self.models[f"{name} (version {record.get('model_version')})"] += 1


@dataclass(frozen=True, slots=True)
class ArmReport:
    """One arm's calls.

    Attributes:
        arm: The name of the arm.
        calls: How many were answered.
        models: Who answered how many.
        decisions: The share of each decision among its documents.
        with_accept: The share of calls with an accepted document.
        latency_ms: The 50th and 99th percentile; None where no time is known.
        fallbacks: How many calls the control's model answered, by reason.
        failures: How many nobody answered, by error.
        not_own: The share of the arm's calls that its own model did not answer.
    """

    arm: str
    calls: int
    models: Mapping[str, int]
    decisions: Mapping[str, float]
    with_accept: Estimate | None
    latency_ms: tuple[float, ...] | None
    fallbacks: Mapping[str, int]
    failures: Mapping[str, int]
    not_own: Estimate | None


def report_arms(arms: Mapping[str, ArmCalls], alpha: float) -> tuple[ArmReport, ...]:
    """Return a report for each arm.

    Args:
        arms: The calls by arm.
        alpha: 1 minus the confidence of the intervals.
    """
    return tuple(_report(name, arms[name], alpha) for name in sorted(arms))


def _report(name: str, arm: ArmCalls, alpha: float) -> ArmReport:
    documents, failed = arm.decisions.total(), arm.failures.total()
    return ArmReport(
        arm=name,
        calls=arm.calls,
        models=dict(arm.models),
        decisions={decision: count / documents for decision, count in sorted(arm.decisions.items())},
        with_accept=share_of(arm.with_accept, arm.calls, alpha),
        latency_ms=quantiles_of(arm.latency_ms, LATENCY_QUANTILES),
        fallbacks=dict(arm.fallbacks),
        failures=dict(arm.failures),
        not_own=share_of(arm.fallbacks.total() + failed, arm.calls + failed, alpha),
    )
