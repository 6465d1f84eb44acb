"""The file that a load test writes, and `lychee report`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lychee_client import ConfigurationError
from lychee_loadtest.results import cli
from lychee_loadtest.results.results import (
    CallStatistics,
    GeneratorHealth,
    LoadTestResults,
    Period,
    ResultsError,
    Verdict,
    read_results,
    write_results,
)
from PIL import Image
from typer import Typer
from typer.testing import CliRunner


def statistics(name: str, docs_per_s: float, p50_ms: float | None, failures: int = 0) -> CallStatistics:
    p99_ms = None if p50_ms is None else 3 * p50_ms
    calls = 0 if p50_ms is None else 10
    return CallStatistics(name, calls, failures, 0, 50, calls / 5, docs_per_s, p50_ms, p99_ms, p99_ms, p99_ms)


def period(start_s: float, docs_per_s: float, p50_ms: float) -> Period:
    bulk = statistics("bulk", 40.0, None if start_s < 10 else 900.0, failures=1)
    return Period(start_s, 5.0, 3, None, (statistics("interactive", docs_per_s, p50_ms), bulk))


WINDOWS = tuple(period(5.0 * number, 10.0 + number, 40.0 + 5 * number) for number in range(6))
RESULTS = LoadTestResults(
    machine={"cpu": "a CPU", "cores": 2, "bfloat16": False, "date": "2026-11-23"},
    started_at="2026-11-23T07:00:00+00:00",
    duration_s=30.0,
    settings={"users": 3, "shape": "step", "arrival_rate": 0.0, "limits": None},
    names=(statistics("gRPC interactive/text", 20.0, 40.0), statistics("REST bulk/mixed", 0.0, None, failures=2)),
    sums=(statistics("all", 20.0, 40.0, failures=2),),
    windows=WINDOWS,
    steps=(WINDOWS[1], WINDOWS[4]),
    generator=GeneratorHealth(1, 0.2, 12.0, 40.0, 0.25, 0.5, 100, 7, 3, 0.5, 9.0, 20.0),
    verdicts=(
        Verdict("interactive", "p99_ms", 100.0, 135.0, at_least=False, met=False),
        Verdict("all", "min_calls", 1.0, 10.0, at_least=True, met=True),
        Verdict("bulk", "p50_ms", 1.0, None, at_least=False, met=False),
    ),
    messages={"REST bulk/mixed: it broke": 2},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    written = tmp_path / "folder" / "run.json"
    write_results(RESULTS, written)
    return written


def run(*arguments: str) -> Any:
    app = Typer()
    app.callback()(lambda: None)
    cli.register(app)
    return CliRunner().invoke(app, ["report", *arguments])


def test_what_was_written_is_read_again(path: Path) -> None:
    assert read_results(path) == RESULTS
    assert json.loads(path.read_text(encoding="utf-8"))["format"] == 1
    assert not RESULTS.met


def test_report_prints_calls_steps_generator_and_limits_and_draws_the_chart(path: Path) -> None:
    done = run(str(path))
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert any(line.startswith("gRPC interactive/text") and " 40 " in line for line in lines)
    assert any(line.startswith("REST bulk/mixed") and " - " in line for line in lines)
    assert sum(line.startswith("step of 3 users") for line in lines) == 2
    assert any(
        "event loop late by 0.2 ms at p50, 12 at p99" in line and "7 found all users busy" in line for line in lines
    )
    assert "2 x REST bulk/mixed: it broke" in lines
    assert "BROKEN interactive: p99_ms 135, limit <= 100" in lines
    assert "met    all: min_calls 10, limit >= 1" in lines
    assert "BROKEN bulk: p50_ms nothing, limit <= 1" in lines
    with Image.open(path.with_suffix(".png")) as picture:
        assert picture.size[0] == 1600
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 50


def test_chart_goes_where_it_is_wanted_or_nowhere(path: Path, tmp_path: Path) -> None:
    assert run(str(path), "--no-chart").exit_code == 0
    assert not path.with_suffix(".png").exists()
    assert run(str(path), "--output", str(tmp_path / "other.png")).exit_code == 0
    assert (tmp_path / "other.png").exists()
    assert not path.with_suffix(".png").exists()


def test_a_run_too_short_for_a_chart_has_a_table(path: Path) -> None:
    content = json.loads(path.read_text(encoding="utf-8")) | {"windows": [], "steps": []}
    path.write_text(json.dumps(content), encoding="utf-8")
    done = run(str(path))
    assert done.exit_code == 0
    assert "lychee: no chart: " in done.stderr
    assert not path.with_suffix(".png").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(format=2), "format 2; expected 1"),
        (lambda content: content["generator"].pop("processes"), "generator.processes"),
        (lambda content: content["windows"][0].update(users="many"), "windows.0.users is 'many'"),
    ],
)
def test_a_file_that_is_none_is_named_with_the_field(path: Path, change: Any, message: str) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    done = run(str(path))
    assert done.exit_code == 2
    assert message in done.output
    assert str(path) in done.output


@pytest.mark.parametrize("text", [None, "", "[1]", "no JSON"])
def test_a_file_that_is_missing_or_no_result_is_refused(tmp_path: Path, text: str | None) -> None:
    other = tmp_path / "other.json"
    if text is not None:
        other.write_text(text, encoding="utf-8")
    with pytest.raises(ResultsError, match=r"other\.json"):
        read_results(other)


def test_results_that_cannot_be_written_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "run.json").mkdir()
    with pytest.raises((ConfigurationError, OSError), match=r"run\.json"):
        write_results(RESULTS, tmp_path / "run.json")
