"""vLLM's score."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient
from lychee_client import InferenceError
from lychee_server.gateway.dialects.vllm import VLLM, PairsBody
from lychee_server.gateway.errors import RequestValueError

NAMES = [("text_1", "text_2"), ("data_1", "data_2"), ("queries", "documents"), ("queries", "items")]
DOCUMENTS = ["bbbb", "aaaa", "cc"]


def scores(gateway: TestClient, body: dict[str, Any], path: str = "/score") -> list[float]:
    answer = gateway.post(path, json=body).json()
    assert answer["object"] == "list"
    assert [entry["index"] for entry in answer["data"]] == list(range(len(answer["data"])))
    assert {entry["object"] for entry in answer["data"]} == {"score"}
    return [entry["score"] for entry in answer["data"]]


@pytest.mark.parametrize(("first", "second"), NAMES)
def test_request(first: str, second: str) -> None:
    one = {"query": "q", "documents": ["a"]}
    assert VLLM.translate({first: "q", second: "a"}) == VLLM.translate({first: ["q"], second: ["a"]}) == one
    assert VLLM.translate({first: "q", second: ["a", "b"]}) == {"query": "q", "documents": ["a", "b"]}
    both = VLLM.translate({first: ["q", "r"], second: ["a", "b"], "truncate_prompt_tokens": 9, "model": "m"})
    assert both == {"query": ["q", "r"], "documents": ["a", "b"], "truncate_prompt_tokens": 9, "model": "m"}
    assert isinstance(both, PairsBody)
    content = {"content": [{"type": "text", "text": "q"}]}
    assert VLLM.translate({first: content, second: content}) == {"query": content, "documents": [content]}


@pytest.mark.parametrize(("first", "second"), NAMES)
def test_numbers_that_do_not_pair_are_refused_by_the_senders_names(first: str, second: str) -> None:
    for queries, documents in ((["q", "r"], ["a", "b", "c"]), (["q", "r"], "a"), ([], ["a"])):
        with pytest.raises(RequestValueError, match=f"^{first} has .* and {second} .*; expected one and any number"):
            VLLM.translate({first: queries, second: documents})


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
@pytest.mark.parametrize(("first", "second"), NAMES)
def test_one_query_with_many_documents(gateway: TestClient, path: str, first: str, second: str) -> None:
    ranked = gateway.post("/v1/rerank", json={"query": "aaaa", "documents": DOCUMENTS}).json()["results"]
    expected = {result["index"]: result["relevance_score"] for result in ranked}
    assert scores(gateway, {first: "aaaa", second: DOCUMENTS}, path) == [expected[index] for index in range(3)]


def test_each_pair_has_its_score_in_its_place(gateway: TestClient) -> None:
    queries = ["aaaa", "cc", "aaaa"]
    pairs = [
        gateway.post("/v1/score", json={"query": query, "document": document}).json()
        for query, document in zip(queries, DOCUMENTS, strict=True)
    ]
    assert scores(gateway, {"text_1": queries, "text_2": DOCUMENTS}) == pytest.approx(
        [pair["relevance_score"] for pair in pairs]
    )
    raw = scores(gateway, {"text_1": queries, "text_2": DOCUMENTS, "use_activation": False})
    assert raw == pytest.approx([pair["logit"] for pair in pairs])


def test_a_pair_that_cannot_be_scored_keeps_its_place(gateway: TestClient) -> None:
    body: dict[str, Any] = {"text_1": ["aaaa", "bbbb", "cc"], "text_2": ["aaaa", "", "cc"]}
    first, second, third = scores(gateway, body)
    assert second == 0.0 < min(first, third)
    assert scores(gateway, {**body, "use_activation": False})[1] == -100.0
    response = gateway.post("/score", json={"text_1": "a", "text_2": ["", ""]})
    assert (response.status_code, response.json()["param"]) == (400, "text_2")


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"text_1": "q"}, 422, "text_2"),
        ({"text_1": "q", "text_2": []}, 400, "text_2"),
        ({"queries": "", "items": ["a"]}, 400, "queries"),
        ({"queries": [[]], "documents": [[]]}, 400, "queries"),
        ({"data_1": "q", "data_2": "a", "use_activation": 7}, 422, "use_activation"),
        ({"data_1": "q", "data_2": "a", "timeout_ms": -1}, 422, "timeout_ms"),
    ],
)
def test_an_error_names_the_field(gateway: TestClient, body: dict[str, Any], status: int, param: str) -> None:
    response = gateway.post("/score", json=body)
    assert (response.status_code, response.json()["param"]) == (status, param)


def test_the_gateways_own_shape_stays(gateway: TestClient) -> None:
    for path in ("/score", "/v1/score"):
        assert gateway.post(path, json={"query": "a", "document": "a"}).json()["object"] == "score"
        error = gateway.post(path, json={"query": "a"}).json()
        assert error["param"] == "document"


def test_a_failure_of_one_pairs_call_is_one_of_the_request(
    gateway: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise InferenceError("internals")

    monkeypatch.setattr(gateway.app.state.service, "rerank", fail)  # type: ignore[attr-defined]
    response = gateway.post("/score", json={"text_1": ["a", "b"], "text_2": ["a", "b"]})
    assert (response.status_code, response.json()["type"]) == (502, "model_failed")
    assert response.headers["retry-after"] == "2"
