"""Voyage's, Mixedbread's, Infinity's and Xinference's clients beyond scores."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from rankers.ranker import KEY, MODEL, Native

QUERY = "一只猫"
TEXTS = ["a cup of coffee", "店里的小猫喜欢在窗台上晒太阳。", "猎鹰九号火箭竖立在发射台上。"]


def test_voyage_shows_documents_and_tokens(gateway_url: str) -> None:
    import voyageai

    answer = voyageai.Client(KEY, base_url=f"{gateway_url}/v1").rerank(QUERY, TEXTS, MODEL)
    assert answer.results[0].document == TEXTS[1]
    assert answer.total_tokens > 0


def test_voyage_async_sees_the_same(gateway_url: str, native: Native) -> None:
    import voyageai

    client = voyageai.AsyncClient(KEY, base_url=f"{gateway_url}/v1")
    answer: Any = asyncio.run(client.rerank(QUERY, TEXTS, MODEL))
    expected = native(QUERY, TEXTS)["results"]
    assert [result.index for result in answer.results] == [result["index"] for result in expected]


def test_voyage_raises_its_errors(gateway_url: str, keyed_gateway_url: str) -> None:
    import voyageai

    with pytest.raises(voyageai.error.InvalidRequestError, match="query"):
        voyageai.Client(KEY, base_url=f"{gateway_url}/v1").rerank("", TEXTS, MODEL)
    with pytest.raises(voyageai.error.AuthenticationError):
        voyageai.Client("wrong", base_url=f"{keyed_gateway_url}/v1").rerank(QUERY, TEXTS, MODEL)


def test_mixedbread_shows_input_and_usage(gateway_url: str) -> None:
    from mixedbread import Mixedbread

    with Mixedbread(api_key=KEY, base_url=gateway_url) as client:
        answer = client.rerank(model=MODEL, query=QUERY, input=TEXTS, top_k=2, return_input=True)
    assert answer.data[0].input == TEXTS[1]
    assert (answer.top_k, answer.return_input, answer.model) == (2, True, MODEL)
    assert answer.usage.total_tokens > 0


def test_mixedbread_raises_its_error(gateway_url: str) -> None:
    import mixedbread

    with (
        mixedbread.Mixedbread(api_key=KEY, base_url=gateway_url, max_retries=0) as client,
        pytest.raises(mixedbread.BadRequestError),
    ):
        client.rerank(model=MODEL, query="", input=TEXTS)


def test_infinity_shows_documents_as_strings_and_raw_scores(gateway_url: str, native: Native) -> None:
    from infinity_client import Client
    from infinity_client.api.default import rerank
    from infinity_client.models import RerankInput

    body = RerankInput(query=QUERY, documents=TEXTS, model=MODEL, return_documents=True, raw_scores=True)
    with Client(base_url=gateway_url, raise_on_unexpected_status=True) as client:
        answer: Any = rerank.sync(client=client, body=body)
    best = native(QUERY, TEXTS)["results"][0]
    assert answer.results[0].document == TEXTS[1]
    assert answer.results[0].relevance_score == pytest.approx(best["logit"], abs=1e-5)
    assert answer.usage.total_tokens > 0
    assert answer.created > 0


def test_xinference_raises_with_the_message(gateway_url: str) -> None:
    from xinference_client import RESTfulClient

    model = RESTfulClient(gateway_url).get_model(MODEL)
    with pytest.raises(RuntimeError, match="query"):
        model.rerank(TEXTS, "")


def test_xinference_options_are_taken(gateway_url: str) -> None:
    from xinference_client import RESTfulClient

    model = RESTfulClient(gateway_url).get_model("any-uid")
    answer = model.rerank(TEXTS, QUERY, max_chunks_per_doc=2, return_documents=True, return_len=True)
    assert answer["results"][0]["document"]["text"] == TEXTS[1]
