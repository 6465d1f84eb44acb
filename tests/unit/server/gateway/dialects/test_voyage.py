"""Voyage."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient
from lychee_server.gateway.answer_schemas import RerankAnswer
from lychee_server.gateway.dialects.voyage import VOYAGE

SENT: dict[str, Any] = {"query": "q", "documents": ["a", "b"], "model": "rerank-2.5", "top_k": None, "truncation": True}


def test_request() -> None:
    assert VOYAGE.translate(SENT) == {"query": "q", "documents": ["a", "b"], "model": "rerank-2.5"}
    translated = VOYAGE.translate({**SENT, "top_k": 1, "truncation": False, "return_documents": True})
    assert (translated["top_n"], translated["truncation"], translated["return_documents"]) == (1, False, True)


def test_answer_stands_in_data_with_documents_as_strings(answer: RerankAnswer) -> None:
    assert VOYAGE.answer(answer, SENT) == {
        "object": "list",
        "id": "call-1",
        "data": [
            {"index": 1, "relevance_score": 0.75, "document": "b"},
            {"index": 0, "relevance_score": 0.25, "document": "a"},
            {"index": 2, "relevance_score": 0.0},
        ],
        "model": "fake",
        "usage": {"total_tokens": 9},
    }


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/voyage/v1/rerank"])
def test_paths(gateway: TestClient, path: str) -> None:
    body = {"query": "aaaa", "documents": ["bbbb", "aaaa"], "top_k": 1, "truncation": True}
    (entry,) = gateway.post(path, json=body).json()["data"]
    assert (entry["index"], set(entry)) == (1, {"index", "relevance_score"})


def test_an_error_has_the_detail_that_the_client_reads(gateway: TestClient) -> None:
    response = gateway.post("/v1/rerank", json={"query": "q", "documents": ["a"], "top_k": -1})
    assert (response.status_code, response.json()["param"]) == (422, "top_k")
    assert response.json()["detail"].startswith("top_k")
