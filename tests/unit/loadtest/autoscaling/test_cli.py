"""The command `lychee autoscale-sim`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from lychee_loadtest.autoscaling import chart
from lychee_loadtest.autoscaling.cli import register
from typer.testing import CliRunner

RUNNER = CliRunner()
SHORT = ["--hours", "1", "--seeds", "1", "--peak", "1", "--spikes", "0"]


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    register(app)
    return app


def test_the_table_compares_targets_and_names_the_cheapest(app: typer.Typer, tmp_path: Path) -> None:
    paths = ["--json", str(tmp_path / "out.json"), "--output", str(tmp_path / "out.png")]
    result = RUNNER.invoke(app, [*SHORT, "--target-ms", "5", "--target-ms", "100", *paths])
    assert result.exit_code == 0, result.output
    names = ["queue 5 ms", "queue 100 ms", "plain 50 ms", "requests 9/s", "CPU 50 %", "CPU 70 %"]
    lines = result.stdout.splitlines()
    assert [line[:12].rstrip() for line in lines[2:8]] == names
    found = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    cases = {case["policy"]["name"]: case for case in found["cases"]}
    assert list(cases) == names
    assert cases["queue 5 ms"]["replica_hours"] >= cases["queue 100 ms"]["replica_hours"]
    kept = [case for case in found["cases"] if case["p99_ms"] is not None and case["p99_ms"] <= 1000]
    best = min(kept, key=lambda case: float(case["cost"]))
    assert lines[-1] == f"cheapest with a p99 within 1000 ms: {best['policy']['name']}"
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_json_takes_the_place_of_the_table(app: typer.Typer) -> None:
    result = RUNNER.invoke(app, [*SHORT, "--vary", "start-up", "--json", "-"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [case["cluster"]["start_up_s"] for case in found["cases"]] == [10, 30, 120, 300]


def test_a_p99_that_no_case_keeps_ends_with_1(app: typer.Typer) -> None:
    result = RUNNER.invoke(app, [*SHORT, "--vary", "behavior", "--p99-ms", "1"])
    assert result.exit_code == 1
    assert "no case keeps the p99 within 1 ms" in result.stderr


def test_more_fewest_than_most_replicas_is_refused(app: typer.Typer) -> None:
    result = RUNNER.invoke(app, ["--min-replicas", "9", "--max-replicas", "3"])
    assert result.exit_code == 2
    assert "--min-replicas is 9; expected at most --max-replicas, 3" in result.stderr


def test_the_picture_has_a_point_for_each_case(
    app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[Any] = []
    monkeypatch.setattr(chart, "save_chart", lambda figure, path: saved.append(figure))
    result = RUNNER.invoke(app, [*SHORT, "--target-ms", "50", "--output", str(tmp_path / "out.png")])
    assert result.exit_code == 0, result.output
    costs, day = saved[0].axes
    names = {"queue 50 ms", "plain 50 ms", "requests 9/s", "CPU 50 %", "CPU 70 %"}
    assert {text.get_text() for text in costs.texts} == names
    assert len(day.lines) == 2
