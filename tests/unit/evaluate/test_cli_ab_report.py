"""`lychee ab-report`, from logged traffic to the verdict."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fakes.commands import evaluate
from lychee_client import RerankResponse, RerankResult, Timings
from lychee_client.thresholds import decide
from lychee_evaluate.cli.ab_report import MAX_DAMAGED_LINES
from lychee_evaluate.experiments.experiment import ExperimentLog, ThresholdExperiment
from typer.testing import CliRunner, Result

Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    return lambda *arguments: CliRunner().invoke(evaluate, ["ab-report", *(str(argument) for argument in arguments)])


def log_traffic(path: Path, *, users: int = 400, extra_clicks: float = 0.0, name: str = "门店") -> Path:
    """Log simulated users; those with the treatment click more often by `extra_clicks` per user."""
    rng = np.random.default_rng(12)
    experiment = ThresholdExperiment(name, {"control": "balanced", "treatment": "strict"}, salt="s3cret")
    with ExperimentLog(experiment, path) as log:
        for key in map(str, range(users)):
            policy = experiment.policy(key)
            assert policy is not None
            scores = [0.9, 0.8, 0.6, float(rng.random())]
            results = [
                RerankResult(index, score, 0.0, decide(score, policy), "text") for index, score in enumerate(scores)
            ]
            log.log_decision(key, RerankResponse(tuple(results), (), Timings()))
            for _ in range(rng.poisson(1 + extra_clicks * (experiment.variant(key) == "treatment"))):
                log.log_event(key, "click")
                log.log_event(key, "dwell", float(rng.lognormal(3, 0.5)))
            if rng.random() < 0.1:
                log.log_event(key, "conversion")
    return path


def test_known_effect_is_found_and_told_in_words(run: Run, tmp_path: Path) -> None:
    result = run(log_traffic(tmp_path / "log.jsonl", extra_clicks=0.5))
    assert result.exit_code == 0
    words = " ".join(result.stdout.split())
    assert "experiment '门店': 'control' " in words
    assert "impressions: 'treatment' is lower in documents shown per user: " in words
    assert "clicks: 'treatment' is higher in clicks per user: " in words
    assert "conversions: no difference found in share of users who converted; " in words
    assert "warning: too few users to rely on finding a difference of 5.0%" in words


def test_no_effect_is_not_found(run: Run, tmp_path: Path) -> None:
    data = json.loads(run(log_traffic(tmp_path / "log.jsonl"), "--json").stdout)
    assert [metric["finding"] for metric in data["metrics"]] == ["lower", "none", "none", "none"]


def test_json_is_one_object(run: Run, tmp_path: Path) -> None:
    path = log_traffic(tmp_path / "log.jsonl", extra_clicks=0.5)
    with path.open("a") as file:
        file.write("{broken\n")
    result = run(path, "--json", "--effect", "0.5", "--alpha", "0.01")
    data = json.loads(result.stdout)
    assert (data["experiment"], data["control"], data["treatment"]) == ("门店", "control", "treatment")
    assert (data["control_users"] + data["treatment_users"], data["alpha"], data["effect"]) == (400, 0.01, 0.5)
    clicks = data["metrics"][1]
    assert clicks["metric"] == "clicks"
    assert 0 < clicks["low"] < clicks["difference"] < clicks["high"]
    assert clicks["verdict"].startswith("'treatment' is higher in clicks per user")
    (damaged,) = data["damaged_lines"]
    assert damaged in result.stderr


def test_damaged_lines_are_named_on_stderr_up_to_a_limit(run: Run, tmp_path: Path) -> None:
    path = log_traffic(tmp_path / "log.jsonl")
    lines = len(path.read_text().splitlines())
    with path.open("a") as file:
        file.write("x\n" * (MAX_DAMAGED_LINES + 3))
    result = run(path)
    assert result.exit_code == 0
    assert f"lychee: skipped {path}:{lines + 1}: " in result.stderr
    assert "lychee: skipped 3 more lines" in result.stderr
    assert len(result.stderr.splitlines()) == MAX_DAMAGED_LINES + 1


def test_control_can_be_the_other_variant(run: Run, tmp_path: Path) -> None:
    path = log_traffic(tmp_path / "log.jsonl", extra_clicks=0.5)
    data = json.loads(run(path, "--json", "--control", "treatment").stdout)
    assert [metric["finding"] for metric in data["metrics"][:2]] == ["higher", "lower"]


def test_lost_log_lines_are_a_sample_ratio_mismatch(run: Run, tmp_path: Path) -> None:
    path = log_traffic(tmp_path / "log.jsonl", extra_clicks=0.5)
    lines = path.read_text().splitlines(keepends=True)
    kept = [line for number, line in enumerate(lines) if '"treatment"' not in line or number % 2]
    path.write_text("".join(kept))
    words = " ".join(run(path).stdout.split())
    assert "clicks: cannot be compared: the users cannot have been assigned as planned" in words
    assert "warning: the numbers of users do not fit the planned split" in words


def test_few_users_are_told_how_many_are_needed(run: Run, tmp_path: Path) -> None:
    words = " ".join(run(log_traffic(tmp_path / "log.jsonl", users=20)).stdout.split())
    assert "clicks: cannot be compared: fewer than 30 users in a variant; to find 5.0%, about " in words


def test_one_of_several_experiments_is_chosen(run: Run, tmp_path: Path) -> None:
    paths = [log_traffic(tmp_path / f"{name}.jsonl", users=80, name=name) for name in ("a", "b")]
    refused = run(*paths)
    assert (refused.exit_code, "choose one of a, b" in refused.stderr) == (2, True)
    assert json.loads(run(*paths, "--experiment", "b", "--json").stdout)["experiment"] == "b"


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["none.jsonl"], 2, "cannot be read"),
        (["log.jsonl", "--alpha", "2"], 2, "alpha is 2"),
        (["log.jsonl", "--effect", "0"], 2, "effect is 0"),
        (["log.jsonl", "--control", "old"], 2, "expected --control control or treatment"),
        (["log.jsonl", "log.jsonl"], 2, "given twice"),
        ([], 2, "Missing argument"),
        (["empty.jsonl"], 1, "no valid line"),
        (["one.jsonl"], 1, "expected two variants with users in both"),
    ],
)
def test_failures_are_told_by_exit_code_and_message(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], exit_code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    log_traffic(Path("log.jsonl"), users=70)
    log_traffic(Path("one.jsonl"), users=1)
    Path("empty.jsonl").touch()
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert message in result.stderr
