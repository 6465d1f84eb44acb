"""Cohere's client beyond scores: what comes back, what it sends of its own, and its errors; in two major versions."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

import httpx
import pytest
from rankers.own_api import CALL, TEXTS, check
from rankers.ranker import KEY, MODEL, Native

MAJOR = {"pinned": "5", "other": "7"}


@pytest.fixture
def cohere(version: str) -> Any:
    module = importlib.import_module("cohere")
    assert module.__version__.split(".")[0] == MAJOR[version]
    return module


@pytest.mark.parametrize("kind", ["Client", "ClientV2"])
def test_answer_says_what_cohere_says(cohere: Any, kind: str, gateway_url: str, native: Native) -> None:
    answer = getattr(cohere, kind)(KEY, base_url=gateway_url).rerank(**CALL)
    check(answer, native)
    assert answer.id
    assert answer.meta.api_version.version == "2"
    assert answer.meta.billed_units.search_units == 1


@pytest.mark.parametrize("kind", ["AsyncClient", "AsyncClientV2"])
def test_async_client_sees_the_same(cohere: Any, kind: str, gateway_url: str, native: Native) -> None:
    async def rank() -> Any:
        async with httpx.AsyncClient(trust_env=False) as http:
            return await getattr(cohere, kind)(KEY, base_url=gateway_url, httpx_client=http).rerank(**CALL)

    check(asyncio.run(rank()), native)


def test_documents_come_back(cohere: Any, gateway_url: str) -> None:
    client = cohere.Client(KEY, base_url=gateway_url)
    assert client.rerank(**CALL, return_documents=True).results[0].document.text == TEXTS[1]
    objects = client.rerank(query="一只猫", documents=[{"text": text} for text in TEXTS], model=MODEL)
    assert objects.results[0].index == 1


def test_own_options_are_taken(cohere: Any, gateway_url: str, native: Native) -> None:
    check(cohere.ClientV2(KEY, base_url=gateway_url).rerank(**CALL, max_tokens_per_doc=100, priority=3), native)


def test_vendors_name_of_a_model_is_taken(cohere: Any, gateway_url: str, native: Native) -> None:
    check(cohere.ClientV2(KEY, base_url=gateway_url).rerank(**{**CALL, "model": "rerank-v3.5"}), native)


def test_image_that_cannot_be_read_costs_the_others_nothing(cohere: Any, gateway_url: str) -> None:
    documents = [{"image": "data:image/png;base64,AAAA"}, *TEXTS]
    answer = cohere.Client(KEY, base_url=gateway_url).rerank(query="一只猫", documents=documents, model=MODEL)
    assert [result.index for result in answer.results][::3] == [2, 0]
    assert answer.results[-1].relevance_score == 0


def test_document_that_cannot_be_ranked_has_its_place(cohere: Any, gateway_url: str) -> None:
    answer = cohere.ClientV2(KEY, base_url=gateway_url).rerank(model="", query="一只猫", documents=["", *TEXTS])
    assert sorted(result.index for result in answer.results) == [0, 1, 2, 3]
    assert (answer.results[-1].index, answer.results[-1].relevance_score) == (0, 0.0)


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/"])
def test_path_is_found_below_every_base_url(cohere: Any, path: str, gateway_url: str, native: Native) -> None:
    for kind in (cohere.Client, cohere.ClientV2):
        check(kind(KEY, base_url=gateway_url + path).rerank(**CALL), native)


def test_relevant_spans_are_found(cohere: Any, version: str, gateway_url: str) -> None:
    if version == "pinned":
        assert not hasattr(cohere, "RerankRelevantSpans")  # this version does not know them yet
        return
    text = f"👨\u200d👩\u200d👧 {TEXTS[0]}. {TEXTS[1]}{TEXTS[2]}"
    spans = cohere.RerankRelevantSpans(mode="enabled", threshold=0, max_spans=2)
    client = cohere.ClientV2(KEY, base_url=gateway_url)
    (result,) = client.rerank(model=MODEL, query="一只猫", documents=[text], relevant_spans=spans).results
    best, second = result.relevant_spans
    assert text[best.start : best.end] == TEXTS[1]
    assert best.score > 0.55 > second.score


def test_errors_are_its_own(cohere: Any, gateway_url: str, keyed_gateway_url: str) -> None:
    errors = importlib.import_module("cohere.errors")
    with pytest.raises(errors.BadRequestError) as caught:
        cohere.ClientV2(KEY, base_url=gateway_url).rerank(**{**CALL, "query": ""})
    assert caught.value.body["request_id"]
    assert caught.value.body["error"]["message"] == caught.value.body["message"]
    with pytest.raises(errors.UnauthorizedError):
        cohere.ClientV2("wrong", base_url=keyed_gateway_url).rerank(**CALL)
