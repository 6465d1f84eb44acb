"""Every document has a result: one that could not be ranked stands behind all that could."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fakes.dual_encoder import FakeTransport
from fakes.gateway import serve
from fastapi.testclient import TestClient
from lychee_client.transports.base import InferRequest, InferResponse, Request
from lychee_server.gateway.answer_schemas import RerankAnswer

BROKEN = {"image": "no image"}
DOCUMENTS: list[Any] = ["", "aaaa", BROKEN, "bbbb", None]


@pytest.fixture
def client() -> Iterator[TestClient]:
    with serve() as client:
        yield client


def rank(client: TestClient, documents: list[Any] = DOCUMENTS, **options: Any) -> dict[str, Any]:
    answer = client.post("/v1/rerank", json={"query": "aaaa", "documents": documents, **options})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def indexes(body: dict[str, Any]) -> list[int]:
    return [result["index"] for result in body["results"]]


def test_documents_that_cannot_be_ranked_come_last_in_the_order_of_the_request(client: TestClient) -> None:
    body = rank(client)
    assert indexes(body) == [1, 3, 0, 2, 4]
    assert [failed["index"] for failed in body["errors"]] == [0, 2, 4]
    for result, failed in zip(body["results"][2:], body["errors"], strict=True):
        assert result == {
            "index": failed["index"],
            "relevance_score": 0.0,
            "logit": None,
            "decision": "error",
            "message": failed["message"],
        }
    assert (body["usage"]["documents"], body["usage"]["images"]) == (2, 0)


def test_they_come_back_as_they_were_sent_where_they_can_be_shown(client: TestClient) -> None:
    deep: Any = []
    for _ in range(400):
        deep = [deep]
    documents = [*DOCUMENTS, "a\ud800", {"text": deep}, {"text": "aaaa", "id": 7}]
    content = json.dumps({"query": "aaaa", "documents": documents, "return_documents": True})
    answer = client.post("/v1/rerank", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    returned = {result["index"]: result.get("document") for result in body["results"]}
    assert returned == {
        0: {"text": ""}, 1: {"text": "aaaa"}, 2: BROKEN, 3: {"text": "bbbb"}, 4: None, 5: {"text": "a\ud800"}, 6: None,
        7: {"text": "aaaa", "id": 7},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"top_n": 1}, [1]),
        ({"top_n": 2}, [1, 3]),
        ({"top_n": 4}, [1, 3, 0, 2]),
        ({"top_n": 9}, [1, 3, 0, 2, 4]),
        ({"top_n": 10**400}, [1, 3, 0, 2, 4]),
        ({"top_n": 0}, [1, 3, 0, 2, 4]),
        ({"score_threshold": 0}, [1, 3, 0, 2, 4]),
        ({"score_threshold": 0.01}, [1, 3]),
        ({"score_threshold": 1}, []),
        ({"score_threshold": 1, "min_results": 4}, [1, 3]),
        ({"score_threshold": 1, "min_results": 1, "top_n": 3}, [1]),
    ],
)
def test_they_count_as_the_lowest_ranked_and_no_option_brings_them_back(
    client: TestClient, options: dict[str, Any], expected: list[int]
) -> None:
    body = rank(client, **options)
    assert indexes(body) == expected
    assert [failed["index"] for failed in body["errors"]] == [0, 2, 4]


@pytest.mark.parametrize(
    ("path", "field"),
    [("/v1/rerank?strict=true", {}), ("/v2/rerank?strict=1", {}), ("/v1/rerank", {"strict": True})],
)
def test_a_strict_call_is_refused_with_the_names_of_its_documents(
    client: TestClient, path: str, field: dict[str, Any]
) -> None:
    answer = client.post(path, json={"query": "aaaa", "documents": DOCUMENTS, **field})
    assert (answer.status_code, answer.json()["param"], answer.json()["type"]) == (400, "documents", "invalid_input")
    assert answer.json()["message"].startswith("3 of 5 documents cannot be ranked: documents[0]: ")
    assert "; documents[2]: " in answer.json()["message"]
    assert client.post(path, json={"query": "aaaa", "documents": ["aaaa"], **field}).status_code == 200


def test_strict_may_be_switched_off_and_must_be_a_switch(client: TestClient) -> None:
    call = {"query": "aaaa", "documents": DOCUMENTS}
    assert client.post("/v1/rerank?strict=false", json={**call, "strict": None}).status_code == 200
    answer = client.post("/v1/rerank?strict=maybe", json=call)
    assert (answer.status_code, answer.json()["param"]) == (422, "strict")
    assert answer.json()["message"] == "strict is 'maybe'; expected true or false; see /docs"


@pytest.mark.parametrize("documents", [[{}], ["", None, BROKEN], [{"title": "t"}] * 40])
def test_a_call_of_which_nothing_can_be_ranked_is_an_error_and_no_empty_answer(
    client: TestClient, documents: list[Any]
) -> None:
    answer = client.post("/v1/rerank", json={"query": "aaaa", "documents": documents, "top_n": 1})
    assert (answer.status_code, answer.json()["type"], answer.json()["param"]) == (400, "invalid_input", "documents")
    assert f"{len(documents)} of {len(documents)} documents cannot be ranked" in answer.json()["message"]
    assert len(answer.json()["message"]) < 3000
    assert [failed["index"] for failed in answer.json()["errors"]] == list(range(len(documents)))
    metrics = client.get("/metrics").text
    assert (
        f'lychee_gateway_document_errors_total{{model="default",reason="invalid_input"}} {len(documents)}.0' in metrics
    )


def test_an_error_of_the_server_is_no_error_of_a_strict_caller() -> None:
    def intercept(request: Request) -> InferResponse | None:
        if not isinstance(request, InferRequest) or request.model_name != "scoring_head_text":
            return None
        if np.ptp(request.inputs["query_embedding"]) == 0:  # a probe
            return None
        scores = np.full((request.rows, 1), 0.5, np.float32)
        scores[-1] = np.nan
        return InferResponse({"relevance_score": scores, "logits": np.full((request.rows, 1), 0.5, np.float32)})

    with serve(FakeTransport(intercept)) as client:
        call = {"query": "q", "documents": ["a", "b"]}
        assert indexes(client.post("/v1/rerank", json=call).json()) == [0, 1]
        answer = client.post("/v1/rerank?strict=true", json=call)
        assert (answer.status_code, answer.json()["type"]) == (502, "invalid_output")


def test_an_answer_fits_its_own_description(client: TestClient) -> None:
    body = rank(client, return_documents=True)
    read = RerankAnswer.model_validate(body)
    assert [type(result).__name__ for result in read.results] == ["RankedDocument"] * 2 + ["UnrankedDocument"] * 3
    schema = client.get("/openapi.json").json()["components"]["schemas"]["UnrankedDocument"]
    assert schema["properties"]["logit"]["type"] == "null"
