"""One call, one model: two real Tritons with different exports of which one takes the place of the other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from checkpoints.changed_weights import change_weights
from checkpoints.exports import export_once
from checkpoints.inputs import TEXTS, make_images
from fakes.replaced_server import ReplacedServer
from lychee_client import AsyncLycheeClient, Image, ImageText, LycheeClient, RerankResponse
from lychee_client._config import load_config
from lychee_client._connect import connect
from lychee_client.transports.base import InferRequest, Request, Transport
from lychee_server import TritonServer

from .conftest import Protocol

pytestmark = pytest.mark.triton

PORTS = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
QUERIES = ("the yellow cat", "a dog")
PHOTOS = [Image.from_pil(image) for image in make_images()]
DOCUMENTS = [*TEXTS, *PHOTOS, *(ImageText(photo, text) for photo, text in zip(PHOTOS, TEXTS, strict=True))]

Scores = dict[int, float]


def scores(response: Any) -> Scores:
    assert not response.errors
    return {result.index: result.relevance_score for result in response.results}


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return two exports with the same tensors and other weights."""
    first = export_once("clip", tmp_path_factory)
    return first, change_weights(first, tmp_path_factory.mktemp("changed") / "clip")


@pytest.fixture(scope="module")
def servers(
    repositories: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[TritonServer, TritonServer]]:
    """Serve both."""
    folder = tmp_path_factory.mktemp("logs")
    first, second = (
        TritonServer(repository, config_name="cpu", **PORTS, log_path=folder / f"{number}.log")
        for number, repository in enumerate(repositories)
    )
    with first, second:
        yield first, second


@pytest.fixture(scope="module")
def expected(servers: tuple[TritonServer, TritonServer]) -> dict[str, tuple[Scores, Scores]]:
    """Return what both models say, by query."""
    made: dict[str, list[Scores]] = {query: [] for query in QUERIES}
    for server in servers:
        with LycheeClient(server.grpc_url, embedding_cache=None) as client:
            assert client.check_golden_pairs().passed
            for query in QUERIES:
                made[query].append(scores(client.rerank(query, DOCUMENTS)))
    for first, second in made.values():
        assert max(abs(first[index] - second[index]) for index in first) > 0.01
    return {query: (first, second) for query, (first, second) in made.items()}


def url(server: TritonServer, protocol: Protocol) -> str:
    return server.grpc_url if protocol == "grpc" else f"http://{server.http_url}"


def connections(servers: tuple[TritonServer, TritonServer], protocol: Protocol) -> tuple[Transport, Transport]:
    """Connect to both servers."""
    first, second = (connect(load_config(url(server, protocol))) for server in servers)
    return first, second


def rank(kind: type[LycheeClient | AsyncLycheeClient], transport: ReplacedServer) -> RerankResponse:
    """Rank once with a client that knows the first server's model when the servers begin to change."""

    async def rank_async() -> RerankResponse:
        async with AsyncLycheeClient(transport=transport, embedding_cache=None) as client:
            await client.manifest()
            transport.arm()
            return await client.rerank(QUERIES[0], DOCUMENTS)

    if kind is AsyncLycheeClient:
        return asyncio.run(rank_async())
    with LycheeClient(transport=transport, embedding_cache=None) as client:
        client.manifest()
        transport.arm()
        return client.rerank(QUERIES[0], DOCUMENTS)


@pytest.mark.parametrize("after", [0, 1, 2, 4, 7, 11, 15])
@pytest.mark.parametrize("kind", [LycheeClient, AsyncLycheeClient], ids=["sync", "async"])
def test_a_call_is_answered_by_one_model_whenever_the_server_is_replaced(
    servers: tuple[TritonServer, TritonServer],
    expected: dict[str, tuple[Scores, Scores]],
    protocol: Protocol,
    kind: type[LycheeClient | AsyncLycheeClient],
    after: int,
) -> None:
    transport = ReplacedServer(*connections(servers, protocol), after=after)
    response = rank(kind, transport)
    place = transport.sent[-1][0]
    assert scores(response) == pytest.approx(expected[QUERIES[0]][place], abs=1e-5)
    assert response.model_version == versions(servers)[place]
    if place:
        assert any(is_query(request) for at, request in transport.sent if at == 1)


def is_query(request: Request) -> bool:
    return isinstance(request, InferRequest) and request.model_name == "text_encoder"


def versions(servers: tuple[TritonServer, TritonServer]) -> list[int | None]:
    found = []
    for server in servers:
        with LycheeClient(server.grpc_url) as client:
            found.append(client.manifest().version)
    return found
