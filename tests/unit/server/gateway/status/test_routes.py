"""The routes of the status, as callers see them."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import pytest
from fakes.dual_encoder import FakeTransport
from fakes.gateway import serve, serve_several
from lychee_server.gateway.status.answer import StatusAnswer

CALL = {"query": "a", "documents": ["b", "c"]}
KEY = "a-key-of-this-test"


@pytest.fixture(autouse=True)
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LYCHEE_CACHE_DIR", str(tmp_path))


def test_status_counts_calls_and_keeps_errors() -> None:
    with serve() as client:
        assert client.post("/v1/rerank", json=CALL).status_code == 200
        logging.getLogger("lychee_server.gateway").error("something failed")
        answer = client.get("/v1/status")
        assert answer.status_code == 200
        status = StatusAnswer.model_validate_json(answer.content)
    assert status.traffic.totals.documents == 2
    assert [error.message for error in status.errors.gateway] == ["something failed"]
    assert "root_path" in answer.text
    assert answer.json()["traffic"]["cache"] is None


def test_what_failed_is_among_the_errors_without_what_was_sent() -> None:
    def fail(request: object) -> None:
        if getattr(request, "model_name", "") == "text_encoder" and transport.live and not quiet:
            raise ValueError("canary-12")

    quiet = [True]
    transport = FakeTransport(fail)
    with serve(transport) as client:
        client.post("/v1/rerank", json=CALL)
        quiet.clear()
        assert client.post("/v1/rerank", json={**CALL, "query": "canary-13"}).status_code == 500
        answer = client.get("/v1/status")
    (error,) = [error for error in answer.json()["errors"]["gateway"] if error["route"] == "/v1/rerank"]
    assert (error["status"], error["detail"]) == (500, "builtins.ValueError")
    assert error["request_id"]
    assert "canary" not in answer.text


def test_of_several_models_the_status_has_the_errors_of_the_one_that_is_asked_about() -> None:
    models = {name: FakeTransport(manifest={"model_id": name, "revision": "1"}) for name in ("a", "b")}
    with serve_several(models) as client:

        def errors(query: str) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = client.get(f"/v1/status{query}").json()["errors"]["gateway"]
            return found

        for name in models:
            assert client.post("/v1/rerank", json={**CALL, "model": name}).status_code == 200
        models["b"].live = False
        ends_at_s = time.monotonic() + 30
        while not errors("?model=b"):
            assert time.monotonic() < ends_at_s
            client.post("/v1/rerank", json={**CALL, "model": "b"})
        logging.getLogger("lychee_server.gateway.keys").error("of the gateway as a whole")
        assert {error["model"] for error in errors("?model=b")} == {"b", None}
        for query in ("", "?model=a"):
            assert [(error["model"], error["message"]) for error in errors(query)] == [
                (None, "of the gateway as a whole")
            ]
        while not any("the model b is" in error["message"] for error in errors("?model=b")):  # its health says so
            assert time.monotonic() < ends_at_s
            client.post("/v1/rerank", json={**CALL, "model": "b"})
        assert len(errors("?model=a")) == 1


def test_golden_pairs_are_replayed_once_in_a_while() -> None:
    with serve() as client:
        assert client.get("/health/ready").status_code in (200, 503)
        client.post("/v1/rerank", json=CALL)
        first = client.post("/v1/golden-pairs")
        assert (first.status_code, first.json()["state"]) == (200, "passed")
        second = client.post("/v1/golden-pairs")
        assert (second.status_code, second.json()["type"]) == (429, "too_busy")
        assert 1 <= int(second.headers["retry-after"]) <= 5


def test_replay_without_triton_is_a_503() -> None:
    transport = FakeTransport()
    transport.live = False
    with serve(transport) as client:
        assert client.post("/v1/golden-pairs").status_code == 503
        assert client.get("/v1/status").json()["golden"]["state"] == "never"


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/status"), ("POST", "/v1/golden-pairs")])
def test_status_needs_the_key_that_calls_need(method: str, path: str) -> None:
    with serve(api_keys=(KEY,)) as client:
        assert client.request(method, path).status_code == 401
        assert client.request(method, path, auth=("anyone", KEY)).status_code == 401
        answer = client.request(method, path, headers={"x-api-key": KEY})
        assert answer.status_code == 200
        assert KEY not in answer.text
