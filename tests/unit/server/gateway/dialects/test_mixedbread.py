"""Mixedbread."""

from __future__ import annotations

from typing import Any

from fastapi.testclient import TestClient
from lychee_server.gateway.answer_schemas import RerankAnswer
from lychee_server.gateway.dialects.mixedbread import MIXEDBREAD

IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}
SENT: dict[str, Any] = {"query": "q", "input": ["a", "b", IMAGE], "top_k": 9, "return_input": True}


def test_request() -> None:
    sent = {**SENT, "rewrite_query": False, "query": {"type": "text", "text": "q"}}
    assert MIXEDBREAD.translate(sent) == {
        "query": {"content": [{"type": "text", "text": "q"}]},
        "documents": ["a", "b", {"content": [IMAGE]}],
        "top_n": 9,
    }
    assert MIXEDBREAD.translate({**SENT, "rewrite_query": True})["rewrite_query"] is True


def test_answer(answer: RerankAnswer) -> None:
    made = MIXEDBREAD.answer(answer, SENT)
    assert made["data"] == [
        {"object": "rank_result", "index": 1, "score": 0.75, "input": "b"},
        {"object": "rank_result", "index": 0, "score": 0.25, "input": "a"},
        {"object": "rank_result", "index": 2, "score": 0.0, "input": IMAGE},
    ]
    assert (made["object"], made["top_k"], made["return_input"]) == ("list", 3, True)
    assert all("input" not in entry for entry in MIXEDBREAD.answer(answer, {"input": SENT["input"]})["data"])


def test_path_and_error(gateway: TestClient) -> None:
    body = {"query": "aaaa", "input": ["bbbb", "aaaa"], "top_k": 1, "return_input": False}
    (entry,) = gateway.post("/v1/reranking", json=body).json()["data"]
    assert entry["index"] == 1
    error = gateway.post("/v1/reranking", json={"query": "q", "input": "a"}).json()
    assert error["param"] == "input"
