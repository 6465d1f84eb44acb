"""Text Embeddings Inference."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient
from lychee_server.gateway.answer_schemas import RerankAnswer
from lychee_server.gateway.dialects.tei import TEI

SENT: dict[str, Any] = {"query": "q", "texts": ["a", "b", "c"]}


def test_request() -> None:
    sent = {**SENT, "raw_scores": False, "return_text": True, "truncate": True, "truncation_direction": "Right"}
    assert TEI.translate(sent) == {"query": "q", "documents": ["a", "b", "c"], "return_documents": True}
    assert TEI.translate({**SENT, "truncate": False})["truncation"] is False
    assert TEI.translate({**SENT, "truncation_direction": "Left"})["truncation_direction"] == "Left"


def test_answer_is_a_bare_array_with_every_document(answer: RerankAnswer) -> None:
    assert TEI.answer(answer, SENT) == [
        {"index": 1, "score": 0.75, "text": "b"},
        {"index": 0, "score": 0.25, "text": "a"},
        {"index": 2, "score": 0.0},
    ]


def test_raw_scores_are_logits(answer: RerankAnswer) -> None:
    ranks = TEI.answer(answer, {**SENT, "raw_scores": "true"})
    assert [rank["score"] for rank in ranks] == [1.5, -1.5, -100.0]


def test_texts_come_back_only_where_they_are_asked_for(gateway: TestClient) -> None:
    body = {"query": "aaaa", "texts": ["bbbb", "aaaa"]}
    assert [set(rank) for rank in gateway.post("/rerank", json=body).json()] == [{"index", "score"}] * 2
    ranks = gateway.post("/rerank", json={**body, "return_text": True}).json()
    assert [(rank["index"], rank["text"]) for rank in ranks] == [(1, "aaaa"), (0, "bbbb")]


@pytest.mark.parametrize(
    ("change", "status", "named"),
    [
        ({"texts": []}, 400, "texts has 0 entries; expected 1 to 1000"),
        ({"raw_scores": "maybe"}, 422, "raw_scores is 'maybe'; expected true or false"),
        ({"query": ""}, 400, "query: "),
    ],
)
def test_an_error_is_a_text_with_a_type(gateway: TestClient, change: dict[str, Any], status: int, named: str) -> None:
    response = gateway.post("/rerank", json={**SENT, **change})
    error = response.json()
    assert response.status_code == status
    assert error["error"].startswith(named)
    assert error["error"] == error["message"]
    assert error["error_type"] == "validation"
    assert error["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(413, "validation"), (429, "overloaded"), (502, "backend"), (503, "unhealthy"), (504, "backend")],
)
def test_types_of_errors(status: int, kind: str) -> None:
    assert TEI.translate_error({"message": "m"}, status, SENT)["error_type"] == kind


def test_info_names_a_reranker_first(gateway: TestClient) -> None:
    info = gateway.get("/info").json()
    assert info["model_id"] == "fake"
    assert next(iter(info["model_type"])) == "reranker"
    assert info["max_input_length"] == 64
    assert info["max_client_batch_size"] == 1000
