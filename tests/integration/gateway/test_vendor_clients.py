"""The official clients of two vendors, pointed at the gateway."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import cohere
import httpx
import pytest
import together
from cohere.core.api_error import ApiError

from .conftest import API_KEY
from .running_gateway import RunningGateway

pytestmark = [
    pytest.mark.triton,
    # cohere 7.3 builds its models with pydantic's compatibility layer.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:cohere"),
    pytest.mark.filterwarnings("ignore::UserWarning:cohere"),
]

DOCUMENTS = ["a cup of coffee", "店里的小猫喜欢在窗台上晒太阳。", "猎鹰九号火箭竖立在发射台上。"]
CALL: dict[str, Any] = {"model": "lychee-mini", "query": "一只猫", "documents": DOCUMENTS, "top_n": 2}


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail on every connection that leaves this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        assert not isinstance(address, tuple) or address[0] in ("127.0.0.1", "::1"), address
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    """For cohere, whose clients leave their own open."""
    with httpx.Client(trust_env=False) as client:
        yield client


def check_results(results: Any) -> None:
    assert len(results) == 2
    assert results[0].index == 1
    assert results[0].relevance_score > 0.55 > results[1].relevance_score


@pytest.mark.parametrize("kind", [cohere.Client, cohere.ClientV2])
def test_cohere(gateway: RunningGateway, http: httpx.Client, kind: type[Any]) -> None:
    response = kind(API_KEY, base_url=gateway.url, httpx_client=http).rerank(**CALL)
    check_results(response.results)
    assert response.id
    assert response.meta.api_version.version == "2"
    assert response.meta.billed_units.search_units == 1


@pytest.mark.parametrize("kind", [cohere.AsyncClient, cohere.AsyncClientV2])
def test_cohere_async(gateway: RunningGateway, kind: type[Any]) -> None:
    async def rank() -> Any:
        async with httpx.AsyncClient(trust_env=False) as http:
            return await kind(API_KEY, base_url=gateway.url, httpx_client=http).rerank(**CALL)

    check_results(asyncio.run(rank()).results)


def test_cohere_returns_documents(gateway: RunningGateway, http: httpx.Client) -> None:
    client = cohere.Client(API_KEY, base_url=gateway.url, httpx_client=http)
    response = client.rerank(**CALL, return_documents=True)
    assert response.results[0].document is not None
    assert response.results[0].document.text == DOCUMENTS[1]
    objects = client.rerank(query="一只猫", documents=[{"text": text} for text in DOCUMENTS], model="lychee-mini")
    assert objects.results[0].index == 1


def test_cohere_finds_relevant_spans(gateway: RunningGateway, http: httpx.Client) -> None:
    client = cohere.ClientV2(API_KEY, base_url=gateway.url, httpx_client=http)
    text = f"👨\u200d👩\u200d👧 {DOCUMENTS[0]}. {DOCUMENTS[1]}{DOCUMENTS[2]}"
    spans = cohere.RerankRelevantSpans(mode="enabled", threshold=0, max_spans=2)
    (result,) = client.rerank(model="lychee-mini", query="一只猫", documents=[text], relevant_spans=spans).results
    assert result.relevant_spans is not None
    best, second = result.relevant_spans
    assert text[best.start : best.end] == DOCUMENTS[1]
    assert best.score > 0.55 > second.score


def test_cohere_sends_its_own_options(gateway: RunningGateway, http: httpx.Client) -> None:
    client = cohere.ClientV2(API_KEY, base_url=gateway.url, httpx_client=http)
    check_results(client.rerank(**CALL, max_tokens_per_doc=100, priority=3).results)


@pytest.mark.parametrize(
    ("key", "call", "status"), [(API_KEY, {**CALL, "top_n": -1}, 422), ("wrong", CALL, 401)], ids=["value", "key"]
)
def test_cohere_raises_its_error(
    gateway: RunningGateway, http: httpx.Client, key: str, call: dict[str, Any], status: int
) -> None:
    with pytest.raises(ApiError) as caught:
        cohere.ClientV2(key, base_url=gateway.url, httpx_client=http).rerank(**call)
    assert caught.value.status_code == status
    body: Any = caught.value.body
    assert body["request_id"]
    assert body["error"]["message"] == body["message"]


@pytest.mark.parametrize("base", ["", "/", "/v1", "/v1/"])
def test_cohere_finds_its_path_below_every_base_url(gateway: RunningGateway, http: httpx.Client, base: str) -> None:
    for kind in (cohere.Client, cohere.ClientV2):
        check_results(kind(API_KEY, base_url=gateway.url + base, httpx_client=http).rerank(**CALL).results)


def test_a_model_of_the_vendor_is_answered(gateway: RunningGateway, http: httpx.Client) -> None:
    client = cohere.ClientV2(API_KEY, base_url=gateway.url, httpx_client=http)
    check_results(client.rerank(**{**CALL, "model": "rerank-v3.5"}).results)


def test_a_document_that_cannot_be_ranked_has_its_place(gateway: RunningGateway, http: httpx.Client) -> None:
    client = cohere.ClientV2(API_KEY, base_url=gateway.url, httpx_client=http)
    results = client.rerank(model="", query="一只猫", documents=["", *DOCUMENTS]).results
    assert sorted(result.index for result in results) == [0, 1, 2, 3]
    assert (results[-1].index, results[-1].relevance_score) == (0, 0.0)


@pytest.mark.parametrize("base", ["/v1", "/v1/", "/v1/v1"])
def test_together(gateway: RunningGateway, base: str) -> None:
    with together.Together(api_key=API_KEY, base_url=f"{gateway.url}{base}", max_retries=0) as client:
        response = client.rerank.create(**CALL, return_documents=True)
    check_results(response.results)
    assert response.object == "rerank"
    assert response.model == "lychee-mini"
    assert response.results[0].document.text == DOCUMENTS[1]
    assert response.usage is not None
    assert response.usage.completion_tokens == 0
    assert response.usage.total_tokens > 0


def test_together_async(gateway: RunningGateway) -> None:
    async def rank() -> Any:
        async with together.AsyncTogether(api_key=API_KEY, base_url=f"{gateway.url}/v1", max_retries=0) as client:
            return await client.rerank.create(**CALL)

    check_results(asyncio.run(rank()).results)


def test_together_raises_its_error(gateway: RunningGateway) -> None:
    with (
        together.Together(api_key="wrong", base_url=f"{gateway.url}/v1", max_retries=0) as client,
        pytest.raises(together.AuthenticationError),
    ):
        client.rerank.create(**CALL)
