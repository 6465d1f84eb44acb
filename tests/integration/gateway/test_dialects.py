"""Each dialect's request to a real Triton: the scores and the order of the gateway's own route."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import httpx
import pytest

from .conftest import API_KEY, Post
from .running_gateway import RunningGateway

pytestmark = pytest.mark.triton

QUERY: Final = "一只猫"
DOCUMENTS: Final = ["a cup of coffee", "店里的小猫喜欢在窗台上晒太阳。", "猎鹰九号火箭竖立在发射台上。", "a tabby cat"]
RANKED: Final = {"query": QUERY, "documents": DOCUMENTS}

Read = Callable[[Any], list[tuple[int, float]]]


@pytest.fixture(scope="module")
def native(post: Post) -> list[dict[str, Any]]:
    """Rank with the gateway's own route, best first."""
    results: list[dict[str, Any]] = post("/v1/rerank", RANKED).json()["results"]
    assert len(results) == len(DOCUMENTS)
    return results


def read(rows: str | None, score: str) -> Read:
    """Return what reads an answer's ranking: index and score, best first."""

    def pairs(answer: Any) -> list[tuple[int, float]]:
        return [(row["index"], row[score]) for row in (answer if rows is None else answer[rows])]

    return pairs


TEI: Final = {"query": QUERY, "texts": DOCUMENTS, "truncate": True, "truncation_direction": "Right"}
NIM: Final = {"query": {"text": QUERY}, "passages": [{"text": text} for text in DOCUMENTS], "truncate": "END"}
MIXEDBREAD: Final = {"query": QUERY, "input": DOCUMENTS, "return_input": True}
VOYAGE: Final = {**RANKED, "top_k": None, "truncation": True}


@pytest.mark.parametrize(
    ("path", "body", "reader", "kind"),
    [
        ("/rerank", RANKED, read("results", "relevance_score"), "relevance_score"),
        ("/v1/reranking", RANKED, read("results", "relevance_score"), "relevance_score"),
        ("/reranking", RANKED, read("results", "relevance_score"), "relevance_score"),
        ("/rerank", TEI, read(None, "score"), "relevance_score"),
        ("/rerank", {**TEI, "raw_scores": True}, read(None, "score"), "logit"),
        ("/v1/ranking", NIM, read("rankings", "logit"), "logit"),
        ("/ranking", NIM, read("rankings", "logit"), "logit"),
        ("/v1/retrieval/nvidia/reranking", NIM, read("rankings", "logit"), "logit"),
        ("/v1/retrieval/nvidia/some-model/reranking", NIM, read("rankings", "logit"), "logit"),
        ("/v1/rerank", VOYAGE, read("data", "relevance_score"), "relevance_score"),
        ("/voyage/v1/rerank", RANKED, read("data", "relevance_score"), "relevance_score"),
        ("/infinity/rerank", RANKED, read("results", "relevance_score"), "relevance_score"),
        ("/rerank", {**RANKED, "raw_scores": True}, read("results", "relevance_score"), "logit"),
        ("/v1/reranking", MIXEDBREAD, read("data", "score"), "relevance_score"),
    ],
)
def test_a_dialect_ranks_as_the_gateways_own_route(
    post: Post, native: list[dict[str, Any]], path: str, body: dict[str, Any], reader: Read, kind: str
) -> None:
    answer = post(path, body)
    assert answer.status_code == 200, answer.text
    ranking = reader(answer.json())
    assert [index for index, _ in ranking] == [result["index"] for result in native]
    assert [score for _, score in ranking] == pytest.approx([result[kind] for result in native], abs=1e-5)


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
@pytest.mark.parametrize(
    ("first", "second"), [("text_1", "text_2"), ("data_1", "data_2"), ("queries", "documents"), ("queries", "items")]
)
def test_scores_stand_in_the_order_of_the_documents(
    post: Post, native: list[dict[str, Any]], path: str, first: str, second: str
) -> None:
    expected = {result["index"]: result["relevance_score"] for result in native}
    data = post(path, {first: QUERY, second: DOCUMENTS}).json()["data"]
    assert [entry["index"] for entry in data] == list(range(len(DOCUMENTS)))
    assert [entry["score"] for entry in data] == pytest.approx([expected[entry["index"]] for entry in data], abs=1e-5)


def test_each_pair_has_the_score_of_its_own_call(post: Post) -> None:
    queries = [QUERY, "rocket", QUERY, "coffee"]
    pairs = list(zip(queries, DOCUMENTS, strict=True))
    expected = [post("/v1/score", {"query": query, "document": document}).json() for query, document in pairs]
    for raw, kind in ((True, "relevance_score"), (False, "logit")):
        data = post("/score", {"text_1": queries, "text_2": DOCUMENTS, "use_activation": raw}).json()["data"]
        assert [entry["score"] for entry in data] == pytest.approx([each[kind] for each in expected], abs=1e-5)


def test_top_counts_and_documents_come_back_under_the_vendors_names(post: Post, native: list[dict[str, Any]]) -> None:
    best = native[0]["index"]
    (voyage,) = post("/v1/rerank", {**RANKED, "top_k": 1, "return_documents": True}).json()["data"]
    assert (voyage["index"], voyage["document"]) == (best, DOCUMENTS[best])
    (mixedbread,) = post("/v1/reranking", {**MIXEDBREAD, "top_k": 1}).json()["data"]
    assert (mixedbread["index"], mixedbread["input"]) == (best, DOCUMENTS[best])
    assert post("/rerank", {**TEI, "return_text": True}).json()[0]["text"] == DOCUMENTS[best]


def test_the_model_is_described_as_each_client_reads_it(gateway: RunningGateway) -> None:
    headers = {"authorization": f"Bearer {API_KEY}"}
    with httpx.Client(base_url=gateway.url, headers=headers, trust_env=False) as client:
        info, model = client.get("/info").json(), client.get("/v1/models/lychee-mini").json()
        (listed,) = client.get("/v1/models").json()["data"]
    assert info["model_id"] == listed["id"] == model["id"] == "lychee-mini"
    assert next(iter(info["model_type"])) == "reranker"
    assert info["max_input_length"] == model["max_tokens"]
    assert model["model_type"] == "rerank"
    assert gateway.get("/info")[0] == 401
