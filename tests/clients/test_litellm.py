"""LiteLLM beyond scores: the documents that it shows, by default, of every provider."""

from __future__ import annotations

import asyncio

import pytest
from rankers.litellm import PROVIDERS
from rankers.ranker import KEY, MODEL, Native

TEXTS = ["a cup of coffee", "店里的小猫喜欢在窗台上晒太阳。", "猎鹰九号火箭竖立在发射台上。"]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_documents_come_back_as_texts(provider: str, gateway_url: str) -> None:
    import litellm

    base = gateway_url + PROVIDERS[provider]
    answer = litellm.rerank(
        f"{provider}/{MODEL}", "一只猫", list(TEXTS), top_n=2, return_documents=True, api_base=base, api_key=KEY
    )
    for result in answer.results:
        assert result["document"] == {"text": TEXTS[result["index"]]}


@pytest.mark.parametrize("provider", ["cohere", "hosted_vllm", "huggingface", "nvidia_nim", "voyage"])
def test_async_call_sees_the_same(provider: str, gateway_url: str, native: Native) -> None:
    import litellm

    base = gateway_url + PROVIDERS[provider]
    answer = asyncio.run(
        litellm.arerank(f"{provider}/{MODEL}", "一只猫", list(TEXTS), top_n=3, api_base=base, api_key=KEY)
    )
    expected = native("一只猫", TEXTS)["results"]
    assert [result["index"] for result in answer.results] == [result["index"] for result in expected]


def test_base_urls_may_name_the_whole_path(gateway_url: str) -> None:
    import litellm

    for provider, path in {"cohere": "/v1/rerank", "hosted_vllm": "/v1/rerank", "huggingface": "/rerank"}.items():
        base = gateway_url + path
        answer = litellm.rerank(f"{provider}/{MODEL}", "一只猫", list(TEXTS), api_base=base, api_key=KEY)
        assert answer.results[0]["index"] == 1


def test_limits_of_vllm_are_taken(gateway_url: str) -> None:
    import litellm

    limits = {"max_tokens_per_doc": 8, "truncate_prompt_tokens": 16, "max_tokens_per_query": 8}
    answer = litellm.rerank(f"hosted_vllm/{MODEL}", "一只猫", list(TEXTS), api_base=gateway_url, api_key=KEY, **limits)
    assert answer.results[0]["index"] == 1
