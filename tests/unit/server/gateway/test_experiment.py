"""An experiment of the gateway: who gets which arm, what is written down, and what happens when it cannot be."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.dual_encoder import FakeTransport
from fakes.gateway import serve, serve_several
from fastapi.testclient import TestClient
from lychee_client.thresholds import POLICIES
from lychee_server.errors import SettingsError
from lychee_server.gateway.experiments import recorder
from lychee_server.gateway.experiments.experiment_file import read_experiment

CALL = {"query": "aaaa", "documents": ["aaaa", "bbbb", "cccc"]}
SALT = "0123456789abcdef"
EXPERIMENT: dict[str, Any] = {
    "name": "shop-2027",
    "salt": SALT,
    "arms": {"control": {"share": 0.5}, "one": {"share": 0.5, "top_n": 1, "policy": "strict"}},
}
USER = "anna@example.com"
Ask = Callable[..., Any]


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LYCHEE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("LYCHEE_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write an experiment's file, with other values in place of its own."""

    def write(**changes: Any) -> Path:
        path = tmp_path / "experiment.json"
        path.write_text(json.dumps(EXPERIMENT | changes), encoding="utf-8")
        return path

    return write


@pytest.fixture
def client(write: Callable[..., Path]) -> Iterator[TestClient]:
    with serve(experiment=write()) as client:
        yield client


def records(folder: Path) -> list[dict[str, Any]]:
    files = sorted(folder.glob("*.jsonl"))
    return [json.loads(line) for path in files for line in path.read_text(encoding="utf-8").splitlines()]


def user_of(client: TestClient, arm: str | None) -> str:
    """Return a user who has this arm; None: who takes no part."""
    for number in range(100):
        told = client.post("/v1/rerank", json={**CALL, "user": f"u{number}"}).json().get("experiment")
        if (told and told["arm"]) == arm:
            return f"u{number}"
    raise AssertionError(arm)


def count(client: TestClient, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"lychee_gateway_experiment_{name}"))


def test_a_user_gets_the_settings_of_one_arm_in_place_of_the_requests(client: TestClient) -> None:
    arms = set()
    for number in range(30):
        body = {**CALL, "user": f"u{number}", "top_n": 2}
        first, again = (client.post("/v1/rerank", json=body).json() for _ in range(2))
        assert first["experiment"] == again["experiment"]
        assert first["ranking_id"] != again["ranking_id"]
        assert first["experiment"]["name"] == "shop-2027"
        arms.add(arm := first["experiment"]["arm"])
        assert len(first["results"]) == {"control": 2, "one": 1}[arm]
    assert arms == {"control", "one"}


def test_every_replica_gives_a_user_the_same_arm_and_knows_the_others_rankings(
    client: TestClient, write: Callable[..., Path]
) -> None:
    reordered = dict(reversed(EXPERIMENT["arms"].items()))
    with serve(experiment=write(arms=reordered)) as other:
        for number in range(20):
            answers = [each.post("/v1/rerank", json={**CALL, "user": number}).json() for each in (client, other)]
            assert answers[0]["experiment"] == answers[1]["experiment"]
        event = {"ranking_id": answers[0]["ranking_id"], "events": [{"type": "click"}]}
        assert other.post("/v1/feedback", json=event).json() == {"accepted": 1, "known": True, "warnings": []}


def test_without_a_user_the_control_fills_in_and_nothing_counts(write: Callable[..., Path], tmp_path: Path) -> None:
    arms = {"control": {"share": 0.5, "top_n": 1}, "all": {"share": 0.5}}
    with serve(experiment=write(arms=arms)) as client:
        for user in ({}, {"user": ""}, {"user": None}):
            body = client.post("/v1/rerank", json={**CALL, **user}).json()
            assert (len(body["results"]), body.get("experiment"), body.get("ranking_id")) == (1, None, None)
            assert body["warnings"] == []
        assert len(client.post("/v1/rerank", json={**CALL, "top_n": 2}).json()["results"]) == 2
        assert count(client, "rankings_total") == 0
    assert records(tmp_path / "state" / "experiments") == []


def test_users_outside_the_traffic_share_are_answered_as_without_a_user(write: Callable[..., Path]) -> None:
    with serve(experiment=write(traffic_share=0.3)) as client:
        body = client.post("/v1/rerank", json={**CALL, "user": user_of(client, None)}).json()
        assert ("ranking_id" in body, "experiment" in body, body["warnings"]) == (False, False, [])
        user_of(client, "one")


def test_what_is_written_tells_the_ranking_and_not_the_user(client: TestClient, tmp_path: Path) -> None:
    answer = client.post("/v1/rerank", json={**CALL, "user": USER})
    body = answer.json()
    assert answer.headers["x-lychee-ranking-id"] == body["ranking_id"]
    events = [{"type": "click", "index": 2, "id": "e"}, {"type": "dwell", "dwell_s": "1.5"}]
    events += [{"type": "conversion", "value": 9.9, "at": "2027-01-31T12:00:00Z"}]
    assert client.post("/v1/feedback", json={"ranking_id": body["ranking_id"], "events": events}).status_code == 200
    client.__exit__()  # what waits is written
    ranking, click, dwell, conversion = records(tmp_path / "state" / "experiments")
    policy = POLICIES["strict" if body["experiment"]["arm"] == "one" else "balanced"]
    assert ranking["policy"] == {"name": policy.name, "accept": policy.accept, "review": policy.review}
    assert [result["index"] for result in ranking["results"]] == [result["index"] for result in body["results"]]
    assert (ranking["experiment"], ranking["variant"], ranking["share"]) == (
        "shop-2027",
        body["experiment"]["arm"],
        0.5,
    )
    assert len(ranking["user"]) == 64
    assert {each["ranking_id"] for each in (ranking, click, dwell, conversion)} == {body["ranking_id"]}
    assert (click["event"], click["value"], click["index"], click["event_id"]) == ("click", 1.0, 2, "e")
    assert (dwell["event"], dwell["value"]) == ("dwell", 1.5)
    assert (conversion["value"], conversion["worth"], conversion["happened_at"][:10]) == (1.0, 9.9, "2027-01-31")


def test_the_user_stands_in_no_log_no_answer_and_no_file(
    client: TestClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    for user in (USER, [USER]):
        assert USER not in client.post("/v1/rerank", json={**CALL, "user": user}).text
    client.__exit__()
    logged = "\n".join(str(vars(line)) for line in caplog.records)
    assert "ranking_id" in logged
    assert USER not in logged
    assert not any(USER in path.read_text() for path in tmp_path.rglob("*.jsonl"))


def test_dialects_tell_the_ranking_too(client: TestClient) -> None:
    told = client.post("/v1/ranking", json={"query": {"text": "a"}, "passages": [{"text": "b"}], "user": "u"}).json()
    assert {"rankings", "ranking_id", "experiment"} <= told.keys()
    bare = client.post("/rerank", json={"query": "a", "texts": ["b"], "user": "u"})  # an array has no room for it
    assert len(bare.headers["x-lychee-ranking-id"]) == 32


def test_a_score_takes_no_part(client: TestClient) -> None:
    for body in ({"query": "a", "document": "b"}, {"queries": "a", "documents": ["b"]}):
        told = client.post("/v1/score", json={**body, "user": "u"}).json()
        assert told["warnings"] == ["user is ignored: callers are not told apart"]


def test_events_of_unknown_rankings_are_written_and_counted(client: TestClient, tmp_path: Path) -> None:
    for ranking_id in ("of-another-gateway", "0" * 32, "\ud800"):
        sent = json.dumps({"ranking_id": ranking_id, "events": [{"type": "click"}] * 2})
        answer = client.post("/v1/feedback", content=sent, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json().get("known")) == (
            (422, None) if "\ud800" in ranking_id else (200, False)
        )
    assert (count(client, "unknown_events_total"), count(client, "events_total")) == (4, 4)
    assert len(records(tmp_path / "state" / "experiments")) == 4


def test_unknown_fields_of_feedback_are_told(client: TestClient) -> None:
    events = [{"type": "click", "colour": "red"}]
    told = client.post("/v1/feedback", json={"ranking_id": "r", "events": events, "page": 1}).json()
    assert told["warnings"] == ["fields that are not known are ignored: 'page', 'colour'; see /docs"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"events": [{"type": "click"}]}, "ranking_id"),
        ({"ranking_id": "", "events": [{"type": "click"}]}, "ranking_id"),
        ({"ranking_id": "r"}, "events"),
        ({"ranking_id": "r", "events": []}, "events"),
        ({"ranking_id": "r", "events": [{"type": "click"}] * 1001}, "events"),
        ({"ranking_id": "r", "events": [{"type": "view"}]}, "events.0.type"),
        ({"ranking_id": "r", "events": [{"type": "click", "index": -1}]}, "events.0.index"),
        ({"ranking_id": "r", "events": [{"type": "click", "index": 10**400}]}, "events.0.index"),
        ({"ranking_id": "r", "events": [{"type": "dwell"}]}, "events.0"),
        ({"ranking_id": "r", "events": [{"type": "dwell", "dwell_s": 1e10}]}, "events.0.dwell_s"),
        ({"ranking_id": "r", "events": [{"type": "conversion", "value": True}]}, "events.0.value"),
        ({"ranking_id": "r", "events": [{"type": "click", "at": "yesterday"}]}, "events.0.at"),
    ],
)
def test_feedback_that_means_nothing_is_refused_by_name(
    client: TestClient, body: dict[str, Any], param: str, tmp_path: Path
) -> None:
    answer = client.post("/v1/feedback", json=body)
    assert (answer.status_code, answer.json()["param"]) == (422, param)
    assert records(tmp_path / "state" / "experiments") == []


def test_without_an_experiment_users_are_ignored_and_feedback_is_refused() -> None:
    with serve() as client:
        body = client.post("/v1/rerank", json={**CALL, "user": "u"}).json()
        assert body["warnings"] == ["user is ignored: callers are not told apart"]
        answer = client.post("/v1/feedback", json={"ranking_id": "r", "events": [{"type": "click"}]})
        assert (answer.status_code, answer.json()["type"]) == (404, "no_experiment")
        assert "--experiment" in answer.json()["message"]


def test_a_full_disk_fails_no_ranking_and_is_counted(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lychee_client.experiments.record_file.os.write", fail)
    ranked = client.post("/v1/rerank", json={**CALL, "user": "u"})
    assert (ranked.status_code, len(ranked.json()["ranking_id"])) == (200, 32)
    told = client.post("/v1/feedback", json={"ranking_id": "r", "events": [{"type": "click"}] * 3})
    assert (told.status_code, told.json()["type"], told.headers["retry-after"]) == (503, "not_recorded", "2")
    assert count(client, "lost_records_total") == 4
    monkeypatch.undo()
    assert client.post("/v1/feedback", json={"ranking_id": "r", "events": [{"type": "click"}]}).status_code == 200


def test_files_are_bounded_and_all_of_them_together(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "MAX_FILE_BYTES", 300_000)
    folder = tmp_path / "logs"
    with serve(experiment=write(log_dir="logs", max_log_mb=1)) as client:
        event = {"ranking_id": "r", "events": [{"type": "click"}] * 1000}
        statuses = [client.post("/v1/feedback", json=event).status_code for _ in range(12)]
    sizes = [path.stat().st_size for path in folder.glob("*.jsonl")]
    assert (statuses[0], statuses[-1]) == (200, 503)
    assert len(sizes) > 1
    assert max(sizes) < 600_000
    assert sum(sizes) < 2 * 2**20


def test_a_file_that_was_taken_away_is_followed_by_another(client: TestClient, tmp_path: Path) -> None:
    event = {"ranking_id": "r", "events": [{"type": "click"}]}
    for _ in range(2):
        client.post("/v1/feedback", json=event)
        (path,) = (tmp_path / "state" / "experiments").glob("*.jsonl")
        path.unlink()
    client.post("/v1/feedback", json=event)
    assert len(records(tmp_path / "state" / "experiments")) == 1


def test_a_ranking_that_failed_is_not_counted(client: TestClient) -> None:
    assert client.post("/v1/rerank", json={**CALL, "documents": [""], "user": "u"}).status_code == 400
    assert count(client, "rankings_total") == 0


def test_toml_says_the_same(write: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "experiment.toml"
    arms = '[arms.control]\nshare = 0.5\n[arms.one]\nshare = 0.5\ntop_n = 1\npolicy = "strict"\n'
    path.write_text(f'name = "shop-2027"\nsalt = "{SALT}"\n{arms}', encoding="utf-8")
    assert read_experiment(path) == read_experiment(write())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a/b"}, "the name 'a/b' has other characters"),
        ({"salt": "short-salt"}, "salt has 10 characters; expected at least 16"),
        ({"salt": 1234567890123456}, "salt is no string"),
        ({"salt": None}, "salt is None|salt is null|salt"),
        ({"arms": {"a": {"share": 0.5}, "b": {"share": 0.5}}}, "the arms are a, b; expected one called 'control'"),
        ({"arms": {"control": {"share": 1.0}}}, "expected two variants or more"),
        ({"arms": {"control": {"share": 0.5}, "b": {"share": 0.6}}}, "add up to 1.1; expected 1"),
        ({"arms": {"control": {"share": 0.5}, "b": {}}}, "share is missing"),
        ({"arms": {"control": {"share": 0.5}, "b": {"share": 0.5, "top_n": -1}}}, "top_n is -1; expected at least 0"),
        ({"arms": {"control": {"share": 0.5}, "b": {"share": 0.5, "tpo_n": 1}}}, "arm 'b': the field 'tpo_n' is not"),
        (
            {"arms": {"control": {"share": 0.5}, "b": {"share": 0.5, "model": "m"}}},
            "arm 'b' has the model 'm', and the ga",
        ),
        (
            {"arms": {"control": {"share": 0.5}, "b": {"share": 0.5, "policy": {"accept": 0.5, "review": 0.6}}}},
            "review",
        ),
        ({"arms": {"control": {"share": 0.5}, "b": {"share": 0.5, "instruction": {"name": "x"}}}}, "is called 'x'"),
        ({"arms": {"control": {"share": 0.5}, "b": {"share": 0.5, "instruction": "a\nb"}}}, "unprintable"),
        ({"traffic_share": 0}, "traffic_share is 0"),
        ({"trafic": 1}, "the field 'trafic' is not known"),
    ],
)
def test_a_bad_file_is_refused_at_the_start(write: Callable[..., Path], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught, serve(experiment=write(**changes)):
        pass
    assert SALT not in str(caught.value)
    assert "1234567890123456" not in str(caught.value)


def test_a_file_that_is_not_there_or_no_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        read_experiment(tmp_path / "none.json")
    for name in ("bad.json", "bad.toml"):
        (tmp_path / name).write_text("{", encoding="utf-8")
        with pytest.raises(SettingsError, match="is not"):
            read_experiment(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_refused_at_the_start(write: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir(mode=0o500)
    with pytest.raises(SettingsError, match="cannot be written"), serve(experiment=write(log_dir="logs")):
        pass


def test_a_folder_that_cannot_be_made_is_refused_at_the_start(write: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file", encoding="utf-8")
    with (
        pytest.raises(SettingsError, match="cannot be made"),
        serve(FakeTransport(), experiment=write(log_dir="logs/inner")),
    ):
        pass


TWO = {"control": {"share": 0.5}, "new": {"share": 0.5, "model": "b"}}


def by_model(weights: int = 1) -> dict[str, FakeTransport]:
    return {
        name: FakeTransport(manifest={"model_id": name, "revision": "1"}, weights=place * weights)
        for place, name in enumerate(("a", "b", "c"))
    }


def wait_until_ready(client: TestClient) -> None:
    for name in ("a", "b", "c"):
        ends_at_s = time.monotonic() + 30
        while client.post("/v1/rerank", json={**CALL, "model": name}).status_code != 200:
            assert time.monotonic() < ends_at_s
            time.sleep(0.02)


def test_calls_are_assigned_by_their_id_and_the_arm_names_the_model(write: Callable[..., Path]) -> None:
    with serve_several(by_model(), experiment=write(arms=TWO, unit="call")) as client:
        wait_until_ready(client)
        arms = []
        for number in range(60):
            for dialect in ("/v1/rerank", "/v2/rerank"):
                answer = client.post(dialect, json=CALL, headers={"x-request-id": f"id-{number}"}).json()
                arms.append(answer["experiment"]["arm"])
                if dialect == "/v1/rerank":
                    assert answer["model"] == {"control": "a", "new": "b"}[arms[-1]]
            assert arms[-1] == arms[-2]
        assert 30 < arms.count("new") < 90


def test_a_call_that_names_another_model_than_the_controls_takes_no_part(write: Callable[..., Path]) -> None:
    with serve_several(by_model(), experiment=write(arms=TWO, unit="call")) as client:
        wait_until_ready(client)
        for name in ("b", "c"):
            answers = [client.post("/v1/rerank", json={**CALL, "model": name}).json() for _ in range(8)]
            assert {answer["model"] for answer in answers} == {name}
            assert not any("experiment" in answer for answer in answers)
        answers = [client.post("/v1/rerank", json={**CALL, "model": "a"}).json() for _ in range(30)]
        assert {answer["model"] for answer in answers} == {"a", "b"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": {**TWO, "new": {"share": 0.5, "model": "x"}}}, "arm 'new' has the model 'x', and the gateway serves"),
        ({"shadow": {"model": "x", "share": 1}}, "the shadow has the model 'x', and the gateway serves a, b, c"),
        ({"shadow": {"model": "b", "share": 2}}, "shadow.share"),
        ({"unit": "cal"}, "unit"),
    ],
)
def test_a_model_that_is_not_served_is_refused_at_the_start(
    write: Callable[..., Path], changes: dict[str, Any], message: str
) -> None:
    with (
        pytest.raises(SettingsError, match=message),
        serve_several(by_model(), experiment=write(**changes)),
    ):
        pass


def test_a_shadow_alone_needs_no_arms_and_is_bounded(write: Callable[..., Path], tmp_path: Path) -> None:
    shadow = {"model": "b", "share": 1.0, "max_mb": 1}
    with serve_several(by_model(), experiment=write(arms={}, shadow=shadow)) as client:
        wait_until_ready(client)
        first = client.post("/v1/rerank", json={**CALL, "top_n": 1}).json()
        assert (first["model"], len(first["results"]), first.get("experiment")) == ("a", 1, None)
        large = {"query": "aaaa", "documents": ["a" * 2**20, "b"]}
        before = count(client, 'shadow_dropped_total{reason="memory"')
        assert client.post("/v1/rerank", json=large).status_code == 200
        assert count(client, 'shadow_dropped_total{reason="memory"') == before + 1
        event = {"ranking_id": "x", "events": [{"type": "click"}]}
        assert not client.post("/v1/feedback", json=event).json()["known"]
    pairs = [each for each in records(tmp_path / "state" / "experiments") if each["record"] == "shadow"]
    assert pairs
    assert all(len(pair["primary"]["results"]) == len(pair["shadow"]["results"]) == 3 for pair in pairs[-1:])
    assert {(pair["primary"]["name"], pair["shadow"]["name"]) for pair in pairs} <= {("a", "b"), ("c", "b")}
