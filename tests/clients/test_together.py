"""Together's client beyond scores, in two major versions, and with each base URL that was ever documented."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any

import pytest
from rankers.own_api import CALL, TEXTS, check
from rankers.ranker import KEY, MODEL, Native

MAJOR = {"pinned": "3", "other": "2"}


@pytest.fixture
def together(version: str) -> Any:
    module = importlib.import_module("together")
    assert module.__version__.split(".")[0] == MAJOR[version]
    return module


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
def test_answer_says_what_together_says(together: Any, path: str, gateway_url: str, native: Native) -> None:
    with together.Together(api_key=KEY, base_url=gateway_url + path, max_retries=0) as client:
        answer = client.rerank.create(**CALL, return_documents=True)
    check(answer, native)
    assert (answer.object, answer.model) == ("rerank", MODEL)
    assert answer.results[0].document.text == TEXTS[1]
    assert answer.usage.completion_tokens == 0
    assert answer.usage.total_tokens > 0


def test_async_client_sees_the_same(together: Any, gateway_url: str, native: Native) -> None:
    async def rank() -> Any:
        async with together.AsyncTogether(api_key=KEY, base_url=f"{gateway_url}/v1", max_retries=0) as client:
            return await client.rerank.create(**CALL)

    check(asyncio.run(rank()), native)


def test_error_is_its_own(together: Any, keyed_gateway_url: str) -> None:
    with (
        together.Together(api_key="wrong", base_url=f"{keyed_gateway_url}/v1", max_retries=0) as client,
        pytest.raises(together.AuthenticationError),
    ):
        client.rerank.create(**CALL)
