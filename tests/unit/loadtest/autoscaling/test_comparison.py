"""The cases, their figures, and the choice."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from lychee_loadtest.autoscaling.autoscaler import Rule, Rules
from lychee_loadtest.autoscaling.comparison import (
    CHART,
    CHART_TARGET_MS,
    Case,
    Figures,
    Scenario,
    cases,
    cheapest,
    summarize,
)
from lychee_loadtest.autoscaling.demand import Calls, Day
from lychee_loadtest.autoscaling.report import table_lines
from lychee_loadtest.autoscaling.service import ServiceTimes
from lychee_loadtest.autoscaling.simulation import Cluster, Run

SERVICE = ServiceTimes("test", (1, 32), (0.01, 0.2))
CASE = cases("start-up", Cluster(), (), SERVICE, Day())[0]
FIGURES = Figures(50.0, 900.0, 300.0, 0.01, 0.002, 100.0, 20, 117, 0.5)


def read_rules(rules: dict[str, Any]) -> Rules:
    found = tuple(Rule(rule["type"], rule["value"], rule["periodSeconds"]) for rule in rules["policies"])
    return Rules(rules["stabilizationWindowSeconds"], found)


def test_page_and_chart_have_what_was_simulated(root: Path) -> None:
    page = (root / "docs" / "how-to" / "kubernetes.md").read_text(encoding="utf-8")
    texts = [re.findall(r"^```yaml\n(autoscaling:.*?)^```", page, re.MULTILINE | re.DOTALL)[0]]
    chart = root / "deploy" / "helm" / "lychee-rerank" / "values.yaml"
    if chart.exists():
        texts.append(chart.read_text(encoding="utf-8"))
    for text in texts:
        values = yaml.safe_load(text)["autoscaling"]
        assert values["targetQueueMs"] == CHART_TARGET_MS
        assert (values["minReplicas"], values["maxReplicas"]) == (Cluster().min_replicas, Cluster().max_replicas)
        assert read_rules(values["behavior"]["scaleUp"]) == CHART.up
        assert read_rules(values["behavior"]["scaleDown"]) == CHART.down


def test_figures_count_refused_calls_as_endlessly_slow_and_their_pairs_not_at_all() -> None:
    latencies = np.array([0.1] * 97 + [2.0, math.inf, math.inf])
    calls = Calls(np.arange(100.0), np.full(100, 10), np.arange(100) >= 97)
    run = Run(latencies, np.zeros(100), 7200.0, [(0.0, 2), (50.0, 5), (80.0, 3)])
    figures = summarize(Scenario(SERVICE, Day(), 1, 1.0, 0.25), calls, run)
    assert figures.p50_ms == pytest.approx(100)
    assert figures.p99_ms == math.inf
    assert figures.calm_p99_ms == pytest.approx(100)
    assert (figures.slow_share, figures.failed_share) == pytest.approx((0.03, 0.02))
    assert (figures.replica_hours, figures.most_replicas, figures.changes) == (2.0, 5, 2)
    assert figures.cost == pytest.approx(2 * 0.25 / 980 * 1e6)
    assert "refused" in table_lines([(CASE, figures)], 1.0)[1]


def test_the_cheapest_is_the_cheapest_of_those_that_keep_the_p99() -> None:
    found: list[tuple[Case, Figures]] = [
        (CASE, FIGURES),
        (CASE, replace(FIGURES, cost=0.4)),
        (CASE, replace(FIGURES, cost=0.3, p99_ms=1001.0)),
        (CASE, replace(FIGURES, cost=0.2, p99_ms=math.inf)),
    ]
    best = cheapest(found, 1000.0)
    assert best is not None
    assert best[1].cost == 0.4
    assert cheapest(found, 10.0) is None
