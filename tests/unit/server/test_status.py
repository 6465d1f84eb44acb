"""What Triton's metrics say."""

from __future__ import annotations

import json

import pytest
from fakes.server_state import make_state, make_triton
from lychee_server import status
from lychee_server.cli.status_text import describe_server
from lychee_server.state import Restarts

METRICS = """# HELP lychee_model_execution What runs a model
# TYPE lychee_model_execution gauge
lychee_model_execution{model="a",precision="fp32",provider="CPU",reason="says \\"no\\", {in} C:\\\\n",version="1"} 1
# HELP nv_cache_num_hits_per_model Number of cache hits per model
# TYPE nv_cache_num_hits_per_model counter
nv_cache_num_hits_per_model{model="a",version="1"} 3
# HELP nv_cache_num_misses_per_model Number of cache misses per model
# TYPE nv_cache_num_misses_per_model counter
nv_cache_num_misses_per_model{model="a",version="1"} 5.000000
# TYPE nv_cpu_utilization gauge
nv_cpu_utilization 0.25
"""
INDEX = [
    {"name": "a", "version": "1", "state": "READY"},
    {"name": "b", "version": "1", "state": "UNAVAILABLE", "reason": "Internal: TritonModelException: gone\n\nAt:\n x"},
]


def test_metrics_are_parsed() -> None:
    execution, hits, misses, utilization = status.parse_metrics(METRICS)
    assert execution.labels["reason"] == 'says "no", {in} C:\\n'
    assert (hits.value, misses.value) == (3, 5)
    assert (utilization.name, utilization.labels, utilization.value) == ("nv_cpu_utilization", {}, 0.25)


def test_models_are_told_with_what_runs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"/metrics": METRICS, "/v2/repository/index": json.dumps(INDEX)}

    def fetch(host: str, port: int, method: str, path: str, key: str = "") -> bytes:
        assert path != "/v2/repository/index" or key == "key"
        return answers[path].encode()

    for module in ("status", "triton_admin"):
        monkeypatch.setattr(f"lychee_server.{module}.fetch", fetch)
    a, b = status.read_models("127.0.0.1", 1, 2, "key")
    assert (a.state, a.provider, a.precision) == ("READY", "CPU", "fp32")
    assert (b.state, b.reason, b.provider) == ("UNAVAILABLE", "gone", None)


def test_a_server_that_does_not_answer_is_unhealthy() -> None:
    dead = make_state()
    current = status.read_status(dead)
    assert not current.healthy
    assert (current.tritons[0].models, current.processes, current.rss_bytes) == ((), (), 0)


def test_restarts_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    restarts = {"triton": Restarts(2, "it ended by signal 9", 0.0)}
    told = make_state(restarts=restarts)
    lines = list(describe_server(status.read_status(told)))
    (line,) = [line for line in lines if line.startswith("  restarts")]
    assert line.startswith("  restarts triton 2, the last at 19")
    assert line.endswith(": it ended by signal 9")


def test_what_is_the_first_models_stands_at_the_top_for_programs_too() -> None:
    known = make_state(make_triton(name="a", grpc_port=8001), make_triton(name="b", grpc_port=8011))
    current = status.read_status(known)
    told = current.to_json()
    assert (told["grpc_url"], told["models"], told["healthy"]) == ("127.0.0.1:8001", (), False)
    assert [(triton["name"], triton["grpc_url"]) for triton in told["tritons"]] == [
        ("a", "127.0.0.1:8001"),
        ("b", "127.0.0.1:8011"),
    ]
    lines = list(describe_server(current))
    assert lines[0] == "Not ready: 2 models"
    assert "a: not ready, pid 1, up 0 s" in lines
    assert lines.index("  gRPC     127.0.0.1:8011") > lines.index("b: not ready, pid 1, up 0 s")
