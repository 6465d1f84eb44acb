"""Who gets which variant, and what is logged."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from lychee_client import (
    ConfigurationError,
    InvalidInputError,
    LycheeError,
    Policy,
    RerankResponse,
    RerankResult,
    Timings,
)
from lychee_client.experiments.events import MAX_EVENT_VALUE
from lychee_client.manifest import ModelIdentity
from lychee_client.thresholds import decide
from lychee_evaluate.experiments.experiment import ExperimentLog, ThresholdExperiment
from lychee_evaluate.experiments.users import read_users

POLICIES = {"control": "balanced", "treatment": Policy("shop", accept=0.68, review=0.6)}


def make(**changes: Any) -> ThresholdExperiment:
    return ThresholdExperiment(**{"name": "shop", "policies": POLICIES, "salt": "s3cret"} | changes)


def respond(policy: str | Policy | None, *scores: float, **fields: Any) -> RerankResponse:
    """Return a response with these scores, decided by a policy."""
    results = tuple(
        RerankResult(index, score, 0.0, decide(score, policy or "balanced"), "text")
        for index, score in enumerate(scores)
    )
    return RerankResponse(results, (), Timings(), **fields)


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def user_of(experiment: ThresholdExperiment, variant: str | None) -> str:
    """Return a user of a variant."""
    return next(key for key in map(str, range(10_000)) if experiment.variant(key) == variant)


def test_variant_never_changes() -> None:
    """Values computed by the first version: a change would reassign the users of running experiments."""
    expected = [None, "treatment", None, "control", "treatment"]
    experiment = make(traffic_share=0.8)
    assert [experiment.variant(key) for key in ("anna", "dave", "用户", "5", "\ud800")] == expected
    code = (
        "from lychee_evaluate.experiments.experiment import ThresholdExperiment as E\n"
        "e = E('shop', {'control': 'balanced', 'treatment': 'strict'}, salt='s3cret', traffic_share=0.8)\n"
        "print([e.variant(key) for key in ('anna', 'dave', '用户', '5', '\\ud800')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(expected)


@pytest.mark.parametrize(("traffic_share", "split"), [(1.0, 0.5), (0.2, 0.5), (0.5, 0.1), (1.0, 0.9)])
def test_variants_have_their_shares(traffic_share: float, split: float) -> None:
    experiment = make(traffic_share=traffic_share, split=split)
    users = 20_000
    counts = Counter(experiment.variant(f"user-{number}") for number in range(users))
    expected = {"treatment": traffic_share * split, "control": traffic_share * (1 - split), None: 1 - traffic_share}
    for variant, share in expected.items():
        assert abs(counts[variant] / users - share) <= 4 * (share * (1 - share) / users) ** 0.5


def test_another_salt_assigns_independently() -> None:
    first, second = make(), make(salt="other")
    counts = Counter((first.variant(key), second.variant(key)) for key in map(str, range(8_000)))
    assert len(counts) == 4
    assert all(abs(count - 2_000) < 4 * (8_000 * 0.25 * 0.75) ** 0.5 for count in counts.values())


def test_more_traffic_moves_nobody_to_the_other_side() -> None:
    small, large = make(traffic_share=0.1), make(traffic_share=0.6)
    inside = [key for key in map(str, range(3_000)) if small.variant(key) is not None]
    assert len(inside) > 200
    assert all(small.variant(key) == large.variant(key) for key in inside)


def test_policy_is_that_of_the_variant() -> None:
    experiment = make(traffic_share=0.5)
    assert experiment.policy(user_of(experiment, "treatment")) == POLICIES["treatment"]
    assert experiment.policy(user_of(experiment, "control")) == Policy("balanced", accept=0.55, review=0.55)
    assert experiment.policy(user_of(experiment, None)) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "name is ''"),
        ({"salt": ""}, "salt has 0 characters"),
        ({"policies": {"control": "strict"}}, r"variants \['control'\]; expected two"),
        ({"policies": {"a": "strict", "b": "strict", "c": "strict"}}, "expected two"),
        ({"policies": {"a": "strict", "": "strict"}}, "expected two with a name"),
        ({"policies": {"a": "strict", "b": "lenient"}}, "lenient"),
        ({"traffic_share": 0}, "traffic_share is 0"),
        ({"traffic_share": 1.01}, r"traffic_share is 1\.01"),
        ({"traffic_share": float("nan")}, "traffic_share is nan"),
        ({"split": 0.0}, "split is 0"),
        ({"split": 1.0}, "split is 1"),
    ],
)
def test_bad_experiment_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make(**changes)


@pytest.mark.parametrize("key", ["", None, 7])
def test_bad_user_key_is_refused(key: Any) -> None:
    with pytest.raises(InvalidInputError, match="user_key is"):
        make().variant(key)


def test_log_holds_decisions_and_events_but_nothing_private(tmp_path: Path) -> None:
    experiment, path = make(split=0.25), tmp_path / "log.jsonl"
    user = user_of(experiment, "treatment")
    response = respond(
        experiment.policy(user),
        0.9,
        0.65,
        0.1,
        model=ModelIdentity("mini", "abc", "fp32", {}),
        instruction="Anna asks about 药",
    )
    with ExperimentLog(experiment, path) as log:
        assert log.log_decision(user, response)
        assert log.log_event(user, "click")
        assert log.log_event(user, "dwell", 12.5)
    decision, click, dwell = records(path)
    common = {"format_version": 1, "experiment": "shop", "variant": "treatment", "share": 0.25}
    assert all(record.items() >= common.items() for record in (decision, click, dwell))
    assert decision["impressions"] == 2
    assert decision["policy"] == {"name": "shop", "accept": 0.68, "review": 0.6}
    assert decision["model"] == "mini abc fp32"
    assert decision["instruction_sha256"] == hashlib.sha256("Anna asks about 药".encode()).hexdigest()
    assert [entry["decision"] for entry in decision["results"]] == ["accept", "review", "reject"]
    assert ((click["event"], click["value"]), (dwell["event"], dwell["value"])) == (("click", 1.0), ("dwell", 12.5))
    assert len({record["user"] for record in (decision, click, dwell)}) == 1


def test_user_is_logged_under_a_pseudonym_of_the_salt(tmp_path: Path) -> None:
    key, path = "anna@example.com", tmp_path / "log.jsonl"
    for salt in ("a", "b"):
        with ExperimentLog(make(salt=salt), path) as log:
            log.log_event(key, "click")
    text = path.read_text(encoding="utf-8")
    assert key not in text
    assert hashlib.sha256(key.encode()).hexdigest() not in text
    first, second = records(path)
    assert first["user"] != second["user"]
    assert len(first["user"]) == 64


def test_impressions_count_what_was_shown_or_what_the_caller_says(tmp_path: Path) -> None:
    experiment, path = make(), tmp_path / "log.jsonl"
    user = user_of(experiment, "control")
    kept = RerankResult(0, 0.3, 0.0, "reject", "text", below_threshold=True)
    with ExperimentLog(experiment, path) as log:
        log.log_decision(user, RerankResponse((kept,), (), Timings()))
        log.log_decision(user, respond("balanced"))
        log.log_decision(user, respond("balanced", 0.9, 0.8), impressions=1)
        with pytest.raises(InvalidInputError, match="impressions is -1"):
            log.log_decision(user, respond("balanced"), impressions=-1)
    assert [record["impressions"] for record in records(path)] == [1, 0, 1]


def test_users_outside_are_not_logged(tmp_path: Path) -> None:
    experiment, path = make(traffic_share=0.5), tmp_path / "log.jsonl"
    user = user_of(experiment, None)
    with ExperimentLog(experiment, path) as log:
        assert not log.log_decision(user, respond(None, 0.9))
        assert not log.log_event(user, "click")
    assert path.read_bytes() == b""


def test_response_of_another_policy_is_refused(tmp_path: Path) -> None:
    experiment, path = make(), tmp_path / "log.jsonl"
    with (
        ExperimentLog(experiment, path) as log,
        pytest.raises(InvalidInputError, match=r"pass policy=experiment\.policy\(user_key\)") as caught,
    ):
        log.log_decision(user_of(experiment, "control"), respond("strict", 0.9, 0.6))
    assert (caught.value.index, path.read_bytes()) == (1, b"")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("view", 1.0),
        ("dwell", None),
        ("click", -1),
        ("click", True),
        ("dwell", float("nan")),
        ("dwell", float("inf")),
        ("dwell", 2 * MAX_EVENT_VALUE),
        ("conversion", 10**400),
        ("conversion", "1"),
    ],
)
def test_bad_event_is_refused(tmp_path: Path, kind: Any, value: Any) -> None:
    with ExperimentLog(make(), tmp_path / "log.jsonl") as log, pytest.raises(InvalidInputError, match="expected"):
        log.log_event("anna", kind, value)


def test_threads_and_processes_share_a_file_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    code = (
        "import sys\n"
        "from lychee_evaluate.experiments.experiment import ExperimentLog, ThresholdExperiment\n"
        "e = ThresholdExperiment('shop', {'control': 'balanced', 'treatment': 'strict'}, salt='s3cret')\n"
        "with ExperimentLog(e, sys.argv[1]) as log:\n"
        "    for number in range(500):\n"
        "        log.log_event(str(number), 'dwell', number)\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(path)]) for _ in range(2)]
    experiment = make()
    user = user_of(experiment, "control")
    response = respond("balanced", *[0.9] * 200)
    with ExperimentLog(experiment, path) as log:
        threads = [
            threading.Thread(target=lambda: [log.log_decision(user, response) for _ in range(50)]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    assert Counter(record["record"] for record in records(path)) == {"event": 1_000, "decision": 200}


def test_half_a_line_of_a_crash_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"format_version": 1, "exp')
    experiment = make()
    with ExperimentLog(experiment, path) as log:
        log.log_decision("anna", respond(experiment.policy("anna"), 0.9))
    users = read_users([path])
    assert sum(variant.count for variant in users.variants.values()) == 1
    assert len(users.damaged) == 1


def test_full_disk_is_reported_and_the_line_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, write = tmp_path / "log.jsonl", os.write
    with ExperimentLog(make(), path) as log:
        monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:10]))
        with pytest.raises(LycheeError, match=r"log\.jsonl took 10 of \d+ bytes; free space"):
            log.log_event("anna", "click")
        monkeypatch.undo()
        log.log_event("anna", "click")
        monkeypatch.setattr(os, "write", fail)
        with pytest.raises(LycheeError, match=r"nothing was logged: .* No space left"):
            log.log_event("anna", "click")
    first, second = path.read_text().splitlines()
    assert (len(first), json.loads(second)["event"]) == (10, "click")


def fail(*_: object) -> int:
    raise OSError(28, "No space left on device")


def test_log_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be opened: Is a directory"):
        ExperimentLog(make(), tmp_path)


def test_closed_log_refuses_and_closes_twice(tmp_path: Path) -> None:
    log = ExperimentLog(make(), tmp_path / "log.jsonl")
    log.close()
    log.close()
    with pytest.raises(LycheeError, match="is closed"):
        log.log_event("anna", "click")
