"""Prometheus' and Grafana's files against the metrics that the gateway has; no container runs."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from deployment import ROOT, find_tool
from lychee_client import MemoryEmbeddingCache
from lychee_server.gateway.dialects.choice import RERANK_PATHS, SCORE_PATHS
from lychee_server.gateway.metrics import Metrics
from prometheus_client.parser import text_string_to_metric_families

PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
DASHBOARD = GRAFANA / "dashboards" / "lychee-rerank.json"
SERIES_SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
OWN = re.compile(r"lychee_gateway_\w+")


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return content


@pytest.fixture(scope="module")
def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


@pytest.fixture(scope="module")
def series() -> set[str]:
    """Return the name of every series that a gateway with a cache has."""
    metrics = Metrics()
    metrics.of()
    metrics.watch_cache(MemoryEmbeddingCache(2**20))
    families = text_string_to_metric_families(metrics.render()[0].decode())
    return {family.name + suffix for family in families for suffix in SERIES_SUFFIXES[family.type]}


def dashboard_queries(panels: list[dict[str, Any]]) -> Iterator[str]:
    for panel in panels:
        for target in panel["targets"]:
            yield target["expr"]


def alert_queries() -> Iterator[str]:
    for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            yield rule["expr"]


def promtool(*arguments: str | Path) -> None:
    finished = subprocess.run([find_tool("promtool"), *arguments], capture_output=True, text=True, timeout=60)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_prometheus_accepts_its_configuration() -> None:
    promtool("check", "config", "--syntax-only", PROMETHEUS / "prometheus.yml")
    promtool("check", "rules", PROMETHEUS / "alerts.yml")


def test_every_alert_fires_when_it_should_and_rests_otherwise() -> None:
    promtool("test", "rules", PROMETHEUS / "alerts_test.yml")
    rules = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
    tests = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text(encoding="utf-8"))["tests"]
    fired = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case["exp_alerts"]}
    rested = {case["alertname"] for test in tests for case in test["alert_rule_test"] if not case["exp_alerts"]}
    assert fired == rested == {rule["alert"] for rule in rules}


def test_every_query_asks_for_a_series_that_the_gateway_has(panels: list[dict[str, Any]], series: set[str]) -> None:
    for query in itertools.chain(dashboard_queries(panels), alert_queries()):
        assert set(OWN.findall(query)) <= series, query
        assert re.search(r"\b(lychee_gateway_|nv_|up\b)", query), query


def test_prometheus_can_parse_every_query_of_the_dashboard(panels: list[dict[str, Any]], tmp_path: Path) -> None:
    queries = [query.replace("$__rate_interval", "1m") for query in dashboard_queries(panels)]
    rules = [{"record": f"q{number}", "expr": query} for number, query in enumerate(queries)]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")
    promtool("check", "rules", path)


def test_dashboard_uses_the_data_source_that_is_provisioned(dashboard: dict[str, Any]) -> None:
    sources = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text(encoding="utf-8"))
    (source,) = sources["datasources"]
    used = re.findall(r'"uid": "(\w+)"', json.dumps([dashboard["panels"], dashboard["templating"]]))
    assert set(used) == {source["uid"]}


def test_panels_are_named_explained_and_side_by_side(dashboard: dict[str, Any], panels: list[dict[str, Any]]) -> None:
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in panels:
        assert panel["title"], panel["id"]
        assert panel["description"].endswith("."), panel["title"]
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        columns = range(place["x"], place["x"] + place["w"])
        cells = set(itertools.product(columns, range(place["y"], place["y"] + place["h"])))
        assert not cells & taken, panel["title"]
        taken |= cells


def test_dashboards_and_configuration_are_where_the_containers_look() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
    provider = yaml.safe_load((GRAFANA / "provisioning/dashboards/lychee-rerank.yml").read_text(encoding="utf-8"))
    folder = provider["providers"][0]["options"]["path"]
    assert f"./deploy/grafana/dashboards:{folder}:ro" in services["grafana"]["volumes"]
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{folder}/{DASHBOARD.name}"


def test_rules_and_dashboard_count_the_calls_of_every_route() -> None:
    texts = [path.read_text(encoding="utf-8").replace("\\", "") for path in (PROMETHEUS / "alerts.yml", DASHBOARD)]
    patterns = {pattern for text in texts for pattern in re.findall(r'route=~"([^"]+)"', text)}
    (pattern,) = patterns
    assert all(re.fullmatch(pattern, route) for route in (*RERANK_PATHS, *SCORE_PATHS))
    assert not any(re.fullmatch(pattern, route) for route in ("/v1/models", "/health", "/metrics", "/info"))
