"""Several models behind one gateway: which of them a call is for, what each has of its own, and what all share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes.dual_encoder import FakeTransport
from fakes.gateway import serve_several
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
