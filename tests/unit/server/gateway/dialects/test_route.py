"""What all dialects share: errors, logs and limits are those of the gateway."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from fastapi.testclient import TestClient
from lychee_client import ConnectionFailedError

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
