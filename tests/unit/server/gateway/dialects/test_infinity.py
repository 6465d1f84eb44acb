"""Infinity."""

from __future__ import annotations

from typing import Any

from fastapi.testclient import TestClient
from lychee_server.gateway.answer_schemas import RerankAnswer
from lychee_server.gateway.dialects.infinity import INFINITY

SENT: dict[str, Any] = {"query": "q", "documents": ["a", "b"], "raw_scores": False, "return_documents": True}


def test_request() -> None:
    assert INFINITY.translate(SENT) == {"query": "q", "documents": ["a", "b"], "return_documents": True}


def test_answer_has_documents_as_strings(answer: RerankAnswer) -> None:
    made = INFINITY.answer(answer, SENT)
    assert made["results"] == [
        {"index": 1, "relevance_score": 0.75, "document": "b"},
        {"index": 0, "relevance_score": 0.25, "document": "a"},
        {"index": 2, "relevance_score": 0.0},
    ]
    assert made["usage"] == {"prompt_tokens": 9, "total_tokens": 9}
    raw = INFINITY.answer(answer, {**SENT, "raw_scores": True})
    assert [result["relevance_score"] for result in raw["results"]] == [1.5, -1.5, -100.0]


def test_the_same_request_is_answered_with_objects_elsewhere(gateway: TestClient) -> None:
    body = {"query": "aaaa", "documents": ["aaaa"], "return_documents": True}
    assert gateway.post("/infinity/rerank", json=body).json()["results"][0]["document"] == "aaaa"
    assert gateway.post("/rerank", json=body).json()["results"][0]["document"] == {"text": "aaaa"}
