"""Elasticsearch's services cohere and jinaai."""

from __future__ import annotations

from fastapi.testclient import TestClient
from lychee_server.gateway.answer_schemas import RerankAnswer
from lychee_server.gateway.dialects.elasticsearch import ELASTICSEARCH


def test_results_have_nothing_that_elasticsearch_does_not_know(answer: RerankAnswer, gateway: TestClient) -> None:
    assert ELASTICSEARCH.answer(answer, {})["results"] == [
        {"index": 1, "relevance_score": 0.75, "document": {"text": "b"}},
        {"index": 0, "relevance_score": 0.25, "document": {"text": "a"}},
        {"index": 2, "relevance_score": 0.0},
    ]
    body = {"model": "fake", "query": "aaaa", "documents": ["bbbb", "aaaa"], "top_n": 1}
    headers = {"Request-Source": "unspecified:elasticsearch"}
    for path in ("/v1/rerank", "/v2/rerank"):
        (result,) = gateway.post(path, json=body, headers=headers).json()["results"]
        assert (result["index"], set(result)) == (1, {"index", "relevance_score"})
        assert "logit" in gateway.post(path, json=body).json()["results"][0]
