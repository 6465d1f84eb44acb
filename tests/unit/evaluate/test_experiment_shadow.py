"""What the report says of a shadow's pairs and of a canary's arms, on known rankings."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.commands import evaluate
from lychee_evaluate.experiments.estimates import share_of
from lychee_evaluate.experiments.shadow import compare_models, read_pair
from lychee_evaluate.experiments.users import read_users
from scipy import stats
from typer.testing import CliRunner

ALPHA = 0.05
CALLS = 40


def side(name: str, scores: list[float] | None, latency_ms: float, **changes: Any) -> dict[str, Any]:
    told: dict[str, Any] = {"name": name, "latency_ms": latency_ms, "error": None, "model_version": 7}
    if scores is None:
        return told | {"error": "InferenceError", "model_version": None}
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    results = [
        {"index": index, "relevance_score": scores[index], "decision": "accept" if scores[index] > 0.5 else "reject"}
        for index in order
    ]
    return told | {"documents": len(scores), "errors": 0, "results": results} | changes


def pair(first: list[float], second: list[float] | None, **changes: Any) -> dict[str, Any]:
    both = {"primary": side("old", first, 10.0, **changes), "shadow": side("new", second, 20.0)}
    return {"format_version": 1, "experiment": "shop", "record": "shadow", **both}


def decision(arm: str, user: str, **changes: Any) -> dict[str, Any]:
    results = [{"index": 0, "relevance_score": 0.9, "decision": "accept"}]
    return {
        "format_version": 1, "experiment": "shop", "record": "decision", "variant": arm, "share": 0.5, "user": user,
        "impressions": 1, "policy": {"name": "balanced"}, "model": f"{arm} 1 fp32", "results": results, "unit": "call",
        "ranking_id": user, "served": arm, "model_version": 1, "latency_ms": 5.0,
    } | changes  # fmt: skip


def test_tau_and_its_interval_are_scipys_on_known_rankings() -> None:
    rng = np.random.default_rng(5)
    scores = [(rng.random(8), rng.random(8)) for _ in range(CALLS)]
    (report,) = compare_models([read_pair(pair(list(first), list(second))) for first, second in scores], ALPHA)
    taus = [stats.kendalltau(first, second).statistic for first, second in scores]
    interval = stats.t.interval(1 - ALPHA, CALLS - 1, np.mean(taus), stats.sem(taus))
    assert report.tau is not None
    assert (report.tau.value, report.tau.low, report.tau.high) == pytest.approx((np.mean(taus), *interval))
    assert report.tau_quantiles == pytest.approx(np.percentile(taus, [10, 50, 90]))
    changed = sum(int(((first > 0.5) != (second > 0.5)).sum()) for first, second in scores)
    assert report.changed is not None
    assert report.changed.value == pytest.approx(changed / (8 * CALLS))
    assert sum(sum(row.values()) for row in report.decisions.values()) == 8 * CALLS
    same = sum(int(first.argmax() == second.argmax()) for first, second in scores)
    assert report.top_1 == share_of(same, CALLS, ALPHA)
    assert report.latency_ratio is not None
    assert report.latency_ratio.value == pytest.approx(2.0)
    assert not any("are few" in note for note in report.notes)


def test_opposite_rankings_move_as_far_as_there_are_ranks() -> None:
    (report,) = compare_models([read_pair(pair([0.9, 0.8, 0.1], [0.1, 0.8, 0.9]))], ALPHA)
    assert report.tau is not None
    assert (report.tau.value, report.rank_moves) == (pytest.approx(-1.0), (2,))
    assert report.decisions == {"accept": {"reject": 1, "accept": 1}, "reject": {"accept": 1}}


def test_one_document_ties_and_failures_are_told_and_count_for_no_tau() -> None:
    records = [pair([0.9], [0.1]), pair([0.5, 0.5], [0.1, 0.9]), pair([0.9, 0.1], None), pair([0.9, 0.1], [0.8, 0.2])]
    (report,) = compare_models([read_pair(record) for record in records], ALPHA)
    assert (report.calls, dict(report.failures), report.without_tau) == (4, {"InferenceError": 1}, 2)
    assert report.tau is not None
    assert (report.tau.value, report.tau.low) == (1.0, None)
    assert any("3 calls are few" in note for note in report.notes)
    assert any("2 calls have no tau" in note for note in report.notes)


@pytest.mark.parametrize(
    "changes",
    [
        {"primary": None},
        {"shadow": {"name": "new"}},
        {"primary": side("old", None, 1)},
        {"shadow": side("n", [np.nan], 1)},
    ],
)
def test_a_damaged_pair_is_a_damaged_line(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(json.dumps(each) for each in (pair([0.9], [0.1]), pair([0.9], [0.1]) | changes)))
    users = read_users([path])
    assert (len(users.pairs), len(users.damaged)) == (1, 1)


def test_arms_tell_fallbacks_and_failures_and_mix_no_models(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    lines = [decision(arm, f"{arm}{number}") for arm in ("control", "new") for number in range(20)]
    lines.append(decision("new", "late", fallback="timeout", model="control 1 fp32", served="control"))
    failure = {"record": "failure", "variant": "new", "user": "u", "error": "InferenceError"}
    lines.append({"format_version": 1, "experiment": "shop", **failure})
    lines.append(pair([0.9, 0.1], [0.1, 0.9]))
    path.write_text("\n".join(map(json.dumps, lines)))
    done = CliRunner().invoke(evaluate, ["ab-report", str(path), "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    arms = {arm["arm"]: arm for arm in report["arms"]}
    assert arms["new"]["fallbacks"] == {"timeout": 1}
    assert arms["new"]["failures"] == {"InferenceError": 1}
    assert arms["new"]["not_own"]["value"] == pytest.approx(2 / 22)
    assert (arms["control"]["fallbacks"], arms["control"]["latency_ms"]) == ({}, [5.0, 5.0])
    assert (report["control_users"], report["treatment_users"]) == (20, 21)
    assert not any("ran with" in warning for warning in report["warnings"])
    words = " ".join(CliRunner().invoke(evaluate, ["ab-report", str(path)]).stdout.split())
    assert "'new' 21 calls" in words
    assert "the two models rank alike to a tau of -1.00 on average" in words
