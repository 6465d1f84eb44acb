"""What all dialects share: errors, logs and limits are those of the gateway."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from fakes.dual_encoder import FakeTransport
from fastapi.testclient import TestClient
from lychee_client import ConnectionFailedError
from lychee_server.gateway.app import create_app
from lychee_server.gateway.dialects.choice import RERANK_PATHS, SCORE_PATHS
from lychee_server.gateway.service import Service
from lychee_server.gateway.settings import GatewaySettings

TEXTS: dict[str, Any] = {"query": "aaaa", "texts": ["bbbb", "aaaa"]}


@pytest.mark.parametrize("content", [b"{canary", b"[]", b"7", b"", b"null", b"\xff\xfe"])
def test_what_is_no_json_object_is_the_gateways_own_error(gateway: TestClient, content: bytes) -> None:
    for path in ("/rerank", "/v1/ranking", "/score", "/infinity/rerank"):
        response = gateway.post(path, content=content, headers={"content-type": "application/json"})
        assert response.status_code in (400, 422)
        assert response.json()["request_id"] == response.headers["x-request-id"]


def test_an_error_keeps_its_headers(gateway: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise ConnectionFailedError("internals")

    monkeypatch.setattr(gateway.app.state.service, "rerank", fail)  # type: ignore[attr-defined]
    response = gateway.post("/rerank", json=TEXTS)
    assert (response.status_code, response.headers["retry-after"]) == (503, "2")
    assert response.json()["error_type"] == "unhealthy"
    assert "internals" not in response.text


def test_the_log_names_the_dialect(gateway: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="lychee_server.access"):
        gateway.post("/rerank", json=TEXTS)
        gateway.post("/rerank", json={"query": "q", "documents": ["a"]})
        gateway.post("/score", json={"text_1": ["a", "b"], "text_2": ["a", "b"]})
    spoken, own, pairs = (record.fields for record in caplog.records)  # type: ignore[attr-defined]
    assert (spoken["dialect"], spoken["route"], spoken["documents"]) == ("tei", "/rerank", 2)
    assert "dialect" not in own
    assert (pairs["dialect"], pairs["documents"]) == ("vllm", 2)


def test_warnings_go_where_there_is_room(gateway: TestClient) -> None:
    long = "word " * 100
    nim = gateway.post("/v1/ranking", json={"query": {"text": long}, "passages": [{"text": "a"}]}).json()
    pairs = gateway.post("/score", json={"text_1": [long, long + "a"], "text_2": ["a", "b"]}).json()
    for answer in (nim, pairs):
        (warning,) = answer["warnings"]
        assert "the query is longer than the 64 tokens" in warning
    assert isinstance(gateway.post("/rerank", json={**TEXTS, "query": long}).json(), list)


def test_what_a_browser_remembers_opens_no_path_of_a_dialect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LYCHEE_CACHE_DIR", str(tmp_path))
    settings = GatewaySettings(web=False, api_keys=("a-long-enough-key",))
    app = create_app(settings, service=Service(settings, transport=FakeTransport()))
    client = TestClient(app, "http://127.0.0.1:7860")
    for path in (*RERANK_PATHS, *SCORE_PATHS):
        path = path.replace("{", "").replace("}", "")
        response = client.post(path, json=TEXTS, auth=("anyone", "a-long-enough-key"))
        assert response.status_code == 401, path
        assert response.headers["www-authenticate"].startswith("Bearer")
    assert client.get("/info", auth=("anyone", "a-long-enough-key")).status_code == 401
    assert client.get("/docs", auth=("anyone", "a-long-enough-key")).status_code == 200


def test_the_places_of_fields_show_no_tags(gateway: TestClient) -> None:
    for body, param in (
        ({"query": "q", "document": "d", "model": 5}, "model"),
        ({"text_1": "q", "text_2": "d", "model": 5}, "model"),
    ):
        error = gateway.post("/score", json=body).json()
        assert (error["type"], error["param"]) == ("invalid_shape", param)
        assert "[" not in error["message"]
