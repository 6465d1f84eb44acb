"""The comparison as a table and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from lychee_loadtest.autoscaling.comparison import Case, Figures, Scenario

__all__ = ["table_lines", "to_json"]


def table_lines(found: Sequence[tuple[Case, Figures]], limit_s: float) -> list[str]:
    """Return the table, a line for each case."""
    width = max(len(case.policy.name) for case, _ in found)
    slow = f"> {limit_s:g} s"
    head = f"{'':{width}}  p50 ms   p99 ms  calm p99  {slow:>7}  refused  replica-h  most  changes  per million pairs"
    return [head, *(_line(case.policy.name.ljust(width), figures) for case, figures in found)]


def to_json(scenario: Scenario, found: Sequence[tuple[Case, Figures]]) -> dict[str, Any]:
    """Return scenario and figures; numbers have their unit in the key, and what is endless is null."""
    lines = []
    for case, figures in found:
        numbers = {name: value if math.isfinite(value) else None for name, value in asdict(figures).items()}
        lines.append({"policy": asdict(case.policy), "cluster": asdict(case.cluster), **numbers})
    return {"format": 1, "scenario": asdict(scenario), "cases": lines}


def _line(name: str, figures: Figures) -> str:
    return (
        f"{name}  {_ms(figures.p50_ms):>6}  {_ms(figures.p99_ms):>7}  {_ms(figures.calm_p99_ms):>8}"
        f"  {figures.slow_share:7.2%}  {figures.failed_share:7.2%}  {figures.replica_hours:9.1f}"
        f"  {figures.most_replicas:4.0f}  {figures.changes:7.0f}  {figures.cost:17.3f}"
    )


def _ms(value: float) -> str:
    return f"{value:.0f}" if math.isfinite(value) else "refused"
