"""Weaviate's reranker-transformers."""

from __future__ import annotations

from fastapi.testclient import TestClient
from lychee_server.gateway.answer_schemas import RerankAnswer
from lychee_server.gateway.dialects.weaviate import WEAVIATE


def test_scores_stand_in_the_order_of_the_request(answer: RerankAnswer, gateway: TestClient) -> None:
    sent = {"query": "q", "property": "", "documents": ["a", "b", "c"]}
    assert WEAVIATE.translate(sent) == {"query": "q", "documents": ["a", "b", "c"]}
    assert WEAVIATE.answer(answer, sent)["scores"] == [
        {"document": "a", "score": 0.25},
        {"document": "b", "score": 0.75},
        {"document": "c", "score": 0.0},
    ]
    body = {"query": "aaaa", "property": "", "documents": ["bbbb", "aaaa"]}
    scores = gateway.post("/rerank", json=body).json()["scores"]
    assert [score["document"] for score in scores] == ["bbbb", "aaaa"]
    assert scores[1]["score"] > scores[0]["score"]
