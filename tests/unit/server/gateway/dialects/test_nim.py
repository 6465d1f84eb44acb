"""NVIDIA's NIM for ranking."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient
from lychee_server.gateway.answer_schemas import RerankAnswer
from lychee_server.gateway.dialects.nim import NIM
from lychee_server.gateway.request_schemas import PIXEL

SENT: dict[str, Any] = {"model": "m", "query": {"text": "q"}, "passages": [{"text": "a"}, {"text": "", "image": PIXEL}]}
PATHS = [
    "/v1/ranking",
    "/ranking",
    "/v1/retrieval/nvidia/reranking",
    "/v1/retrieval/nvidia/nv-rerankqa-mistral-4b-v3/reranking",
]


def test_request() -> None:
    translated = NIM.translate({**SENT, "truncate": "END", "top_k": 1})
    assert translated == {
        "model": "m",
        "query": {"text": "q"},
        "documents": [{"text": "a"}, {"image": PIXEL}],
        "top_n": 1,
    }
    assert NIM.translate({**SENT, "truncate": "NONE"})["truncation"] is False


def test_answer_has_a_logit_for_every_passage(answer: RerankAnswer) -> None:
    made = NIM.answer(answer, SENT)
    assert made["rankings"] == [
        {"index": 1, "logit": 1.5},
        {"index": 0, "logit": -1.5},
        {"index": 2, "logit": -100.0},
    ]
    assert made["usage"] == {"prompt_tokens": 9, "total_tokens": 9}


@pytest.mark.parametrize("path", PATHS)
def test_paths(gateway: TestClient, path: str) -> None:
    body = {"query": {"text": "aaaa"}, "passages": [{"text": "bbbb"}, {"text": "aaaa"}, {"text": "", "image": PIXEL}]}
    rankings = gateway.post(path, json=body).json()["rankings"]
    assert len(rankings) == 3
    assert [ranking["index"] for ranking in rankings if ranking["index"] < 2] == [1, 0]
    assert gateway.get(path).status_code == 405


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"query": {"text": "q"}}, "passages"),
        ({**SENT, "truncate": "START"}, "truncate"),
        ({**SENT, "top_k": -1}, "top_k"),
    ],
)
def test_an_error_names_the_field(gateway: TestClient, body: dict[str, Any], param: str) -> None:
    response = gateway.post("/v1/ranking", json=body)
    assert (response.status_code, response.json()["param"]) == (422, param)
    assert response.json()["message"].startswith(param)


def test_the_path_is_counted_by_its_template(gateway: TestClient) -> None:
    body = {"query": {"text": "a"}, "passages": [{"text": "a"}]}
    gateway.post("/v1/retrieval/canary/canary/reranking", json=body)
    text = gateway.get("/metrics").text
    assert 'route="/v1/retrieval/{owner}/{model}/reranking",status="200"' in text
    assert "canary" not in text
