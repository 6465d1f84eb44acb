"""The REST API of a real gateway in front of a real Triton."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import httpx
import pytest
from lychee_client import Chunking, Image, ImageText, LycheeClient, RerankResponse
from lychee_server.gateway.request_schemas import RERANK_EXAMPLES, SCORE_EXAMPLES

from .conftest import Post
from .running_gateway import RunningGateway

pytestmark = pytest.mark.triton

QUERY = "一只猫"
TOLERANCE = 1e-6
FILLER = "The invoice of the quarter was sent to the office and paid by transfer. "


def data_url(path: Path) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode()}"


def scores(answer: httpx.Response) -> dict[int, float]:
    assert answer.status_code == 200, answer.text
    return {result["index"]: result["relevance_score"] for result in answer.json()["results"]}


def scores_of(response: RerankResponse) -> dict[int, float]:
    return {result.index: result.relevance_score for result in response.results}


def test_scores_equal_those_of_the_sdk_for_every_modality(post: Post, client: LycheeClient, photos: Path) -> None:
    cat, rocket = photos / "cat.jpg", photos / "rocket.jpg"
    sent: list[Any] = [
        "店里的小猫喜欢在窗台上晒太阳。",
        {"text": "a rocket"},
        {"image": data_url(rocket)},
        {"text": "虎斑猫，两岁", "image": data_url(cat)},
        {"content": [{"type": "text", "text": "two"}, {"type": "text", "text": "lines"}]},
        {"content": [{"type": "image_url", "image_url": {"url": data_url(cat)}}]},
        {"content": [{"type": "image_url", "image_url": data_url(cat)}, {"type": "text", "text": "cat"}]},
        {"content": [{"type": "image", "image": data_url(cat)}]},
    ]
    documents = [
        "店里的小猫喜欢在窗台上晒太阳。",
        "a rocket",
        Image.from_path(rocket),
        ImageText(Image.from_path(cat), "虎斑猫，两岁"),
        "two\nlines",
        Image.from_path(cat),
        ImageText(Image.from_path(cat), "cat"),
        Image.from_path(cat),
    ]
    for query, sent_query in (
        (QUERY, QUERY),
        (Image.from_path(cat), {"image": data_url(cat)}),
        (ImageText(Image.from_path(cat), QUERY), {"text": QUERY, "image": data_url(cat)}),
    ):
        expected = scores_of(client.rerank(query, documents))
        for _ in range(2):  # the second time from the embedding cache
            answer = post("/v1/rerank", {"query": sent_query, "documents": sent})
            assert scores(answer) == pytest.approx(expected, abs=TOLERANCE)
    assert answer.json()["embedding_cache"]["misses"] == 0


def test_v2_answers_the_same(post: Post) -> None:
    body = {"query": QUERY, "documents": ["小猫", "a cup of coffee", "小猫"]}
    assert scores(post("/v2/rerank", body)) == pytest.approx(scores(post("/v1/rerank", body)), abs=TOLERANCE)


def test_broken_documents_cost_the_others_nothing(post: Post, photos: Path) -> None:
    good = ["小猫", {"image": data_url(photos / "cat.jpg")}]
    broken: list[Any] = [
        "",
        {"image": "data:image/png;base64,!!!"},
        {"image": "data:image/png;base64,aGVsbG8="},
        {"image": base64.b64encode(b"raw").decode()},
        {"image": "/etc/passwd"},
        {"image": "https://example.org/cat.jpg"},
        {"title": "unknown"},
        {},
        None,
        7,
    ]
    alone = scores(post("/v1/rerank", {"query": QUERY, "documents": good}))
    answer = post("/v1/rerank", {"query": QUERY, "documents": [*broken, *good]})
    offset = len(broken)
    ranked = {index + offset: score for index, score in alone.items()}
    assert scores(answer) == pytest.approx(ranked | dict.fromkeys(range(offset), 0.0), abs=TOLERANCE)
    last = answer.json()["results"][len(good) :]
    assert [(result["index"], result["logit"], result["decision"]) for result in last] == [
        (index, None, "error") for index in range(offset)
    ]
    assert [error["index"] for error in answer.json()["errors"]] == list(range(offset))


def test_a_call_is_refused_where_nothing_can_be_ranked_or_not_everything_and_it_is_strict(post: Post) -> None:
    nothing = post("/v1/rerank", {"query": QUERY, "documents": ["", {"title": "t"}]})
    strict = post("/v1/rerank?strict=true", {"query": QUERY, "documents": ["小猫", {}]})
    for answer in (nothing, strict):
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "documents")
    assert "1 of 2 documents cannot be ranked: documents[1]: " in strict.json()["message"]


def test_what_other_clients_send_scores_as_the_plain_form_does(post: Post, photos: Path) -> None:
    image = data_url(photos / "cat.jpg")
    plain = {"query": QUERY, "documents": ["小猫", {"image": image}, {"text": "猫", "image": image}], "top_n": 2}
    sent = {
        "query": {"text": QUERY, "id": "q"},
        "documents": [
            {"text": "小猫", "id": 7, "metadata": {"source": "shop"}},
            {"image": image.partition(",")[2]},
            {"text": "猫", "image_url": {"url": image}, "title": "t"},
        ],
        "top_n": "2.0",
        "model": "jina-reranker-m0",
        "return_documents": "false",
        "max_results": 5,
        "user": "u",
        "policy": None,
    }
    answer = post("//v1/v1/rerank/", sent)
    assert scores(answer) == pytest.approx(scores(post("/v1/rerank", plain)), abs=TOLERANCE)
    assert answer.json()["warnings"] == [
        "user is ignored: callers are not told apart",
        "the model 'jina-reranker-m0' is not served here; lychee-mini answered",
        "fields that are not known are ignored: 'max_results'; see /docs",
        "keys of query or documents that are not known are ignored: 'id', 'metadata', 'title'",
    ]
    assert answer.headers["x-lychee-warnings"] == "4"
    assert answer.headers["x-lychee-ignored"] == "max_results, id, metadata, title"


def test_a_wrong_value_is_told_with_field_and_value(post: Post) -> None:
    answer = post("/v1/rerank", {"query": QUERY, "documents": ["小猫"], "top_n": 2.5})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_shape")
    assert answer.json()["message"] == "top_n is 2.5; expected a whole number; see /docs"


def test_a_thousand_documents(post: Post) -> None:
    documents = [f"文档 number {number}" for number in range(1000)]
    answer = post("/v1/rerank", {"query": "文档 number 7", "documents": documents, "top_n": 3})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert len(body["results"]) == 3
    assert body["results"][0]["index"] == 7
    assert body["usage"]["documents"] == 1000
    assert post("/v1/rerank", {"query": "q", "documents": [*documents, "one more"]}).status_code == 400


def test_options_reach_the_model(post: Post) -> None:
    body = {
        "query": QUERY,
        "documents": ["小猫", "a cup of coffee"],
        "model": "lychee-mini",
        "instruction": {"name": "search", "language": "zh"},
        "policy": {"accept": 1.0, "review": 0.0},
        "score_threshold": 1.0,
        "min_results": 1,
        "server_timings": True,
        "return_documents": True,
        "timeout_ms": 20000,
    }
    answer = post("/v1/rerank", body)
    assert answer.status_code == 200, answer.text
    (result,) = answer.json()["results"]
    assert result["decision"] == "review"
    assert result["below_threshold"]
    assert result["document"] == {"text": "小猫"}
    assert "reads no instruction" in answer.json()["warnings"][0]
    assert answer.json()["timings"]["server"]
    assert answer.json()["id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("path", "examples"), [("/v1/rerank", RERANK_EXAMPLES), ("/v1/score", SCORE_EXAMPLES)], ids=["rerank", "score"]
)
def test_the_examples_of_the_documentation_work(post: Post, path: str, examples: dict[str, Any]) -> None:
    for example in examples.values():
        answer = post(path, example["value"])
        assert answer.status_code == 200, answer.text
        assert not answer.json().get("errors")


def test_models_and_instructions_are_listed(gateway: RunningGateway) -> None:
    headers = {"x-api-key": "key-of-the-integration-tests"}
    assert gateway.get("//v1/models/")[0] == 401
    assert '"id":"lychee-mini"' in gateway.get("/v1/models", headers)[1]
    assert '"name":"search"' in gateway.get("/v1/instructions", headers)[1]
    assert gateway.get("/v1/models")[0] == 401


def test_long_document_has_the_score_and_the_chunk_that_the_sdk_gives(post: Post, client: LycheeClient) -> None:
    book = FILLER * 60 + "😀 店里的小猫喜欢在窗台上晒太阳。" + FILLER * 60
    sent = {
        "query": QUERY,
        "documents": [book, "a rocket"],
        "chunking": {"overlap_tokens": 30},
        "max_chunks_per_doc": 20,
    }
    answer = post("/v1/rerank", sent).json()
    response = client.rerank(QUERY, [book, "a rocket"], chunking=Chunking(30, 20))
    best = response.results[0]
    assert best.chunk is not None
    assert answer["results"][0]["chunk"] == {"start": best.chunk.start, "end": best.chunk.end}
    assert "小猫" in book[best.chunk.start : best.chunk.end]
    assert answer["results"][0]["relevance_score"] == pytest.approx(best.relevance_score, abs=TOLERANCE)
    assert answer["usage"]["total_tokens"] == response.tokens_read
    assert "chunk" not in answer["results"][1]
