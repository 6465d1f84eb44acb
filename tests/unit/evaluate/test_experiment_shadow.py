"""What the report says of a shadow's pairs and of a canary's arms, on known rankings."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.commands import evaluate
from lychee_evaluate.experiments.estimates import Estimate, share_of
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


def pair(
    first: list[float], second: list[float] | None, times_ms: tuple[float, float] = (10.0, 20.0), **changes: Any
) -> dict[str, Any]:
    both = {"primary": side("old", first, times_ms[0], **changes), "shadow": side("new", second, times_ms[1])}
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


def test_decisions_scores_and_times_are_told_of_the_model_that_had_them() -> None:
    records = [
        pair([0.9, 0.8, 0.7, 0.1], [0.4, 0.3, 0.2, 0.1], (10.0, 30.0)),  # three of four change, all to reject
        pair([0.9, 0.1], [0.6, 0.7], (20.0, 30.0)),  # one changes, to accept
        pair([0.9, 0.1], [0.95, 0.05], (90.0, 300.0)),  # none
    ]
    (report,) = compare_models([read_pair(record) for record in records], ALPHA)
    assert report.decisions == {"accept": {"reject": 3, "accept": 2}, "reject": {"reject": 2, "accept": 1}}
    assert report.changed is not None
    assert report.changed.value == pytest.approx(4 / 8)
    assert report.changed_calls == share_of(2, 3, ALPHA)
    differences = [-0.5, -0.5, -0.5, 0.0, -0.3, 0.6, 0.05, -0.05]
    assert report.score_difference == pytest.approx(np.percentile(differences, [10, 50, 90]))
    for name, times in {"primary": [10, 20, 90], "shadow": [30, 30, 300]}.items():
        assert report.latency_ms[name] == pytest.approx(np.quantile(times, [0.5, 0.99]))
    assert report.latency_ratio is not None
    assert report.latency_ratio.value == pytest.approx(stats.gmean([3, 1.5, 300 / 90]))


def test_the_best_documents_and_the_largest_moves_are_counted_call_by_call() -> None:
    six, three = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [0.9, 0.8, 0.7]
    changed = [0.9, 0.8, 0.7, 0.6, 0.4, 0.5]  # four of the five best are the same
    records = [pair(six, changed), pair(three, three), *(pair(three, three[::-1]) for _ in range(5)), pair(six, six)]
    (report,) = compare_models([read_pair(record) for record in records], ALPHA)
    assert report.top_k is not None
    assert report.top_k.value == pytest.approx((4 / 5 + 7) / 8)
    assert report.top_1 == share_of(3, 8, ALPHA)
    assert report.rank_moves == (2, 2, 2, 2, 2)


def test_versions_and_models_are_told_apart_and_failures_of_no_version_count_with_each() -> None:
    newer = side("new", [0.2, 0.1], 20.0, model_version=8)
    records = [
        *(pair([0.9, 0.1], [0.8, 0.2]) for _ in range(2)),
        pair([0.9, 0.1], [0.8, 0.2]) | {"shadow": newer},
        pair([0.9, 0.1], None),
        pair([0.9, 0.1], [0.8, 0.2]) | {"primary": side("third", [0.1, 0.9], 5.0)},
    ]
    reports = compare_models([read_pair(record) for record in records], ALPHA)
    found = {(each.primary, each.shadow): (each.calls, each.failures.get("InferenceError", 0)) for each in reports}
    assert found == {
        ("old (version 7)", "new (version 7)"): (3, 1),
        ("old (version 7)", "new (version 8)"): (2, 1),
        ("third (version 7)", "new (version 7)"): (1, 0),
    }
    assert [each.tau.value for each in reports if each.tau is not None] == [1.0, 1.0, -1.0]


def test_notes_count_what_was_answered_and_what_was_cut() -> None:
    records = [pair([0.9, 0.1], [0.8, 0.2]) for _ in range(28)]
    records += [pair([0.9, 0.1], [0.8, 0.2], documents=120), *(pair([0.9, 0.1], None) for _ in range(5))]
    (report,) = compare_models([read_pair(record) for record in records], ALPHA)
    assert any("29 calls are few" in note for note in report.notes)
    assert any("1 calls had more documents than are written down" in note for note in report.notes)
    (report,) = compare_models([read_pair(pair([0.9, 0.1], [0.8, 0.2])) for _ in range(30)], ALPHA)
    assert not any("are few" in note or "written down" in note for note in report.notes)
    assert report.tau == Estimate(1.0, None, None)  # nothing varied, which says nothing of what may


def test_rankings_without_a_common_document_compare_nothing() -> None:
    record = pair([0.9], [0.8])
    record["shadow"]["results"][0]["index"] = 7
    (report,) = compare_models([read_pair(record)], ALPHA)
    assert (report.calls, report.without_tau, report.changed, report.top_1) == (1, 1, None, None)


def test_intervals_of_shares_are_wilsons() -> None:
    found = share_of(1, 10, ALPHA)
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((0.1, 0.01788, 0.40415), abs=1e-5)
    assert share_of(0, 0, ALPHA) is None


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


def results(*decisions: str) -> list[dict[str, Any]]:
    return [
        {"index": index, "relevance_score": 0.9 - index / 10, "decision": each} for index, each in enumerate(decisions)
    ]


@pytest.fixture
def two_arms(tmp_path: Path) -> Path:
    """Write the log of a control with five calls and a canary with three answers, one of them not its own."""
    shown = [("accept", "review", "reject", "reject"), ("accept", "reject"), ("reject", "reject")]
    lines = [
        decision("control", f"c{number}", results=results(*shown[min(number, 2)]), latency_ms=10.0 * number)
        for number in range(5)
    ]
    new = {"served": "new", "model_version": 2, "results": results("accept", "accept"), "latency_ms": 50.0}
    lines += [decision("new", f"n{number}", **new) for number in range(2)]
    lines.append(decision("new", "late", fallback="busy", served="control", latency_ms=950.0))
    failure = {"record": "failure", "variant": "new", "error": "InferenceError"}
    lines += [{"format_version": 1, "experiment": "shop", **failure, "user": f"f{number}"} for number in range(2)]
    lines += [pair([0.9, 0.8, 0.1], [0.4, 0.45, 0.3], (40.0, 80.0)), pair([0.9, 0.8, 0.1], [0.9, 0.8, 0.1])]
    lines.append(pair([0.9, 0.1], None))
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_each_arm_tells_decisions_times_and_who_answered(two_arms: Path) -> None:
    done = CliRunner().invoke(evaluate, ["ab-report", str(two_arms), "--json"])
    control, new = json.loads(done.stdout)["arms"]
    assert (control["arm"], control["calls"], control["models"]) == ("control", 5, {"control (version 1)": 5})
    assert control["decisions"] == pytest.approx({"accept": 2 / 12, "review": 1 / 12, "reject": 9 / 12})
    assert control["with_accept"]["value"] == pytest.approx(2 / 5)
    assert control["latency_ms"] == pytest.approx(np.quantile([0, 10, 20, 30, 40], [0.5, 0.99]))
    assert new["models"] == {"new (version 2)": 2, "control (version 1)": 1}
    assert new["latency_ms"] == pytest.approx(np.quantile([50, 50, 950], [0.5, 0.99]))
    assert (new["fallbacks"], new["failures"]) == ({"busy": 1}, {"InferenceError": 2})
    expected = share_of(3, 5, ALPHA)
    assert expected is not None
    assert new["not_own"] == pytest.approx({"value": expected.value, "low": expected.low, "high": expected.high})


def test_the_report_in_words_puts_each_number_where_its_name_says(two_arms: Path) -> None:
    done = CliRunner().invoke(evaluate, ["ab-report", str(two_arms)], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "…" not in CliRunner().invoke(evaluate, ["ab-report", str(two_arms)], env={"COLUMNS": "80"}).stdout
    (heading,) = [number for number, line in enumerate(lines) if line.startswith("arm calls accept review reject")]
    control, new = lines[heading + 1 : heading + 3]
    assert control == "control 5 16.7% 8.3% 75.0% 20 ms 40 ms"
    assert new == "new 3 100.0% 0.0% 0.0% 50 ms 932 ms"
    assert lines[heading + 3] == "control: calls with accept 40.0% (11.8% to 76.9%); fallbacks 0; failures 0"
    assert lines[heading + 4].startswith("new: calls with accept 100.0% (")
    assert lines[heading + 4].endswith("; fallbacks 1 busy; failures 2 InferenceError")
    text = "\n".join(lines)
    assert "shadow new (version 7) beside old (version 7): 3 calls" in text
    assert "agree on the best document in 50.0% (9.5% to 90.5%) of the calls, and decide 33.3% (" in text
    assert "failures: 1 InferenceError" in text
    assert "largest moves, in ranks: 1, 0" in text
    assert "of documents, in 50.0% (9.5% to 90.5%) of calls" in text
    assert "difference of scores: p10/p50/p90 -0.425 / 0.000 / 0.100" in text
    assert "p50, p99: primary 25 ms, 40 ms; shadow 50 ms, 79 ms" in text
    assert [line for line in lines if ", then" in line] == [
        "accept, then 2 0 2",
        "review, then 0 0 0",
        "reject, then 0 0 2",
    ]


def test_an_experiment_without_models_says_nothing_of_them(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    lines = [decision(arm, f"{arm}{number}") for arm in ("control", "new") for number in range(2)]
    path.write_text("\n".join(json.dumps({**line, "served": None}) for line in lines))
    words = CliRunner().invoke(evaluate, ["ab-report", str(path)]).stdout
    assert "p99" not in words
    assert "shadow" not in words
    failure = {"format_version": 1, "experiment": "shop", "record": "failure", "variant": "new", "user": "u"}
    path.write_text(path.read_text() + "\n" + json.dumps({**failure, "error": "InferenceError"}))
    assert "p99" in CliRunner().invoke(evaluate, ["ab-report", str(path)]).stdout
