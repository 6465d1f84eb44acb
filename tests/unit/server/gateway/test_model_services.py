"""Several models behind one gateway: which of them a call is for, what each has of its own, and what all share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.dual_encoder import FakeTransport
from fakes.gateway import serve, serve_several
from fastapi.testclient import TestClient

CALL = {"query": "aaaa", "documents": ["aaaa", "bbbb"]}
WAIT_S = 30.0


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LYCHEE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("LYCHEE_STATE_DIR", str(tmp_path / "state"))


def model(model_id: str, weights: int = 0, revision: str = "1") -> FakeTransport:
    """Return a server of a model with this id."""
    return FakeTransport(manifest={"model_id": model_id, "revision": revision}, weights=weights)


def wait(is_so: Callable[[], bool]) -> None:
    ends_at_s = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < ends_at_s
        time.sleep(0.02)


@pytest.fixture
def client() -> Iterator[TestClient]:
    own = {"b": {"served_model_names": ("rerank-v3.5",), "policy": "strict", "max_documents": 3}}
    with serve_several({"a": model("org/first"), "b": model("org/second", weights=1)}, own) as client:
        wait(lambda: client.get("/health/ready").json()["status"] == "ok")
        yield client


def scores(client: TestClient, name: str | None, path: str = "/v1/rerank") -> list[float]:
    answer = client.post(path, json=CALL if name is None else {**CALL, "model": name})
    assert answer.status_code == 200, answer.text
    ranked = sorted(answer.json()["results"], key=lambda result: result["index"])
    return [result["relevance_score"] for result in ranked]


@pytest.mark.parametrize("name", ["b", "rerank-v3.5", "org/second", "second"])
def test_every_name_of_a_model_chooses_it(client: TestClient, name: str) -> None:
    assert client.post("/v1/rerank", json={**CALL, "model": name}).json()["model"] == "org/second"
    assert scores(client, name) == scores(client, "b") != scores(client, "a")


@pytest.mark.parametrize("name", [None, "", "  ", "a", "org/first", "first"])
def test_no_name_means_the_default(client: TestClient, name: str | None) -> None:
    assert scores(client, name) == scores(client, "a")


def test_an_unknown_name_is_refused_and_the_served_ones_are_named(client: TestClient) -> None:
    answer = client.post("/v1/rerank", json={**CALL, "model": "nobody"})
    assert answer.status_code == 404
    assert answer.json()["type"] == "model_not_found"
    assert answer.json()["param"] == "model"
    for name in ("a", "org/first", "b", "org/second", "rerank-v3.5"):
        assert name in answer.json()["message"]


DIALECTS: dict[str, tuple[str, dict[str, Any], Callable[[Any], str]]] = {
    "cohere": ("/v2/rerank", CALL, lambda error: error["message"]),
    "voyage": ("/voyage/v1/rerank", {**CALL, "top_k": 2}, lambda error: error["detail"]),
    "mixedbread": ("/v1/reranking", {"query": "aaaa", "input": ["aaaa", "bbbb"]}, lambda error: error["message"]),
    "nim": (
        "/v1/ranking",
        {"query": {"text": "aaaa"}, "passages": [{"text": "aaaa"}, {"text": "bbbb"}]},
        lambda error: error["error"]["message"],
    ),
    "vllm": ("/v1/score", {"text_1": "aaaa", "text_2": ["aaaa", "bbbb"]}, lambda error: error["error"]["message"]),
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_chooses_and_is_refused_in_its_own_shape(client: TestClient, dialect: str) -> None:
    path, body, read_error = DIALECTS[dialect]
    first, second = (client.post(path, json={**body, "model": name}) for name in ("a", "b"))
    assert first.status_code == second.status_code == 200, first.text + second.text
    for answer in (first.json(), second.json()):
        answer.pop("id", None)
    assert without_ids(first.json()) != without_ids(second.json())
    refused = client.post(path, json={**body, "model": "nobody"})
    assert refused.status_code == 404
    assert "'nobody' is not served; expected one of" in read_error(refused.json())


def without_ids(answer: dict[str, Any]) -> dict[str, Any]:
    """Return scores alone: what differs between two models."""
    return {name: answer[name] for name in ("results", "data", "rankings") if name in answer}


def test_a_path_of_nvidias_names_the_model(client: TestClient) -> None:
    body = DIALECTS["nim"][1]
    told = [client.post(path, json=body).json() for path in ("/v1/retrieval/org/second/reranking", "/v1/ranking")]
    assert told[0]["rankings"] != told[1]["rankings"]
    assert client.post("/v1/retrieval/org/nobody/reranking", json=body).status_code == 404


def test_models_are_listed_under_all_names_the_default_first(client: TestClient) -> None:
    entries = client.get("/v1/models").json()["data"]
    assert [entry["id"] for entry in entries] == [
        *("org/first", "first", "a"),
        *("org/second", "second", "b", "rerank-v3.5"),
    ]
    assert {(entry["name"], entry["root"], entry["default"], entry["ready"]) for entry in entries} == {
        ("a", "org/first", True, True),
        ("b", "org/second", False, True),
    }
    assert client.get("/v1/models/rerank-v3.5").json() == entries[-1]
    assert client.get("/v1/models/nobody").status_code == 404


def test_a_model_id_of_two_models_is_no_name(tmp_path: Path) -> None:
    with serve_several({"a": model("org/same"), "b": model("org/same", weights=1)}) as client:
        wait(lambda: client.get("/health/ready").json()["status"] == "ok")
        assert [entry["id"] for entry in client.get("/v1/models").json()["data"]] == ["a", "b"]
        assert client.post("/v1/rerank", json={**CALL, "model": "org/same"}).status_code == 404
        assert scores(client, "a") != scores(client, "b")


def test_a_name_of_the_settings_goes_before_what_a_manifest_tells() -> None:
    with serve_several({"a": model("org/b"), "b": model("org/other", weights=1)}) as client:
        wait(lambda: client.get("/health/ready").json()["status"] == "ok")
        assert client.get("/v1/models/b").json()["root"] == "org/other"
        assert [entry["id"] for entry in client.get("/v1/models").json()["data"]][:2] == ["org/b", "a"]


def test_every_model_has_its_policy_and_limits(client: TestClient) -> None:
    assert client.get("/v1/settings").json()["default_policy"] == "balanced"
    told = client.get("/v1/settings", params={"model": "second"}).json()
    assert (told["default_policy"], told["max_documents"]) == ("strict", 3)
    many = {"query": "a", "documents": ["b"] * 4}
    assert client.post("/v1/rerank", json=many).status_code == 200
    refused = client.post("/v1/rerank", json={**many, "model": "b"})
    assert refused.status_code == 400
    assert "expected 1 to 3" in refused.json()["message"]
    assert client.get("/v1/settings", params={"model": "nobody"}).status_code == 404
    assert client.get("/info").json()["model_id"] == "org/first"
    status = {name: client.get("/v1/status", params={"model": name}).json() for name in ("a", "b")}
    assert [status[name]["model"]["model_id"] for name in "ab"] == ["org/first", "org/second"]
    assert [status[name]["traffic"]["totals"]["documents"] for name in "ab"] == [4, 0]


def test_a_dead_model_costs_the_others_nothing() -> None:
    dead = model("org/second")
    with serve_several({"a": model("org/first"), "b": dead}) as client:
        wait(lambda: client.get("/health/ready").json()["status"] == "ok")
        assert client.get("/health").json()["models"].keys() == {"a", "b"}
        dead.live = False
        wait(lambda: client.get("/health/ready", params={"model": "b"}).status_code == 503)
        ready = client.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert ready.json()["models"]["a"] == {"status": "ok"}
        assert ready.json()["reason"].startswith("b: unavailable: ")
        whole = client.get("/health")
        assert (whole.status_code, whole.json()["status"]) == (503, "degraded")
        assert whole.json()["models"]["a"]["status"] == "ok"
        assert client.get("/health", params={"model": "a"}).status_code == 200
        assert client.post("/v1/rerank", json=CALL).status_code == 200
        assert client.post("/v1/rerank", json={**CALL, "model": "b"}).status_code == 503
        assert [entry["ready"] for entry in client.get("/v1/models").json()["data"]] == [True] * 3 + [False] * 3
        metrics = client.get("/metrics").text
        assert 'lychee_gateway_ready{model="a"} 1.0' in metrics
        assert 'lychee_gateway_ready{model="b"} 0.0' in metrics


def test_a_name_that_may_be_that_of_a_model_which_was_never_there_is_told_to_come_again() -> None:
    away = model("org/second")
    away.live = False
    with serve_several({"a": model("org/first"), "b": away}) as client:
        wait(lambda: client.get("/health/ready").status_code == 200)
        answer = client.post("/v1/rerank", json={**CALL, "model": "org/second"})
        assert answer.status_code == 503
        assert "retry-after" in answer.headers
        assert client.post("/v1/rerank", json={**CALL, "model": "first"}).status_code == 200
        assert [entry["name"] for entry in client.get("/v1/models").json()["data"]] == ["a", "a", "a"]


def test_none_is_ready_and_so_the_gateway_is_not() -> None:
    transports = {"a": model("org/first"), "b": model("org/second")}
    for transport in transports.values():
        transport.live = False
    with serve_several(transports) as client:
        ready = client.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "unavailable")
        assert client.get("/v1/models").status_code == 503


def test_calls_are_counted_and_logged_by_model(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "lychee_server.access")
    client.post("/v1/rerank", json={**CALL, "model": "rerank-v3.5"})
    client.post("/v1/rerank", json={**CALL, "model": "nobody"})
    logged = [record.fields for record in caplog.records if getattr(record, "fields", {}).get("route") == "/v1/rerank"]
    assert [(fields["status"], fields.get("served")) for fields in logged] == [(200, "b"), (404, None)]
    labels = 'method="POST",modality="{modality}",model="{model}",route="/v1/rerank",status="{status}"'
    metrics = client.get("/metrics").text
    for values in ({"modality": "text", "model": "b", "status": 200}, {"modality": "none", "model": "", "status": 404}):
        assert f"lychee_gateway_requests_total{{{labels.format(**values)}}} 1.0" in metrics
    assert 'lychee_gateway_documents_count{model="b",route="/v1/rerank"} 1.0' in metrics
    assert 'lychee_gateway_documents_count{model="a"' not in metrics
    for name, model_id in (("a", "org/first"), ("b", "org/second")):
        assert f'lychee_gateway_build_info{{model="{name}",model_id="{model_id}"' in metrics


def test_with_one_model_nothing_tells_of_several(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "lychee_server.access")
    with serve(model("org/first")) as client:
        answer = client.post("/v1/rerank", json={**CALL, "model": "nobody"}).json()
        assert answer["warnings"] == ["the model 'nobody' is not served here; org/first answered"]
        assert client.get("/health/ready").json() == {"status": "ok"}
        assert set(client.get("/health").json()) == {"status", "latency_ms"}
        entries = client.get("/v1/models").json()["data"]
        assert [entry["id"] for entry in entries] == ["org/first", "first"]
        assert not {"name", "default", "ready"} & entries[0].keys()
    assert all("served" not in getattr(record, "fields", {}) for record in caplog.records)
