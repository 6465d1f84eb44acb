"""One call, one model: two real Tritons with different exports behind one address that leads to one of them."""

from __future__ import annotations

import asyncio
import threading
import time
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
from lychee_client.triton_key import KEY_VARIABLE
from lychee_server import TritonServer
from lychee_server.gateway.service import Service
from lychee_server.gateway.settings import GatewaySettings

from .conftest import Protocol

pytestmark = pytest.mark.triton

KEY = "k" * 32
PORTS = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
QUERIES = ("the yellow cat", "a dog")
PHOTOS = [Image.from_pil(image) for image in make_images()]
DOCUMENTS = [*TEXTS, *PHOTOS, *(ImageText(photo, text) for photo, text in zip(PHOTOS, TEXTS, strict=True))]
CHANGES = 3
REQUESTS_BETWEEN = 250  # a call takes about 20
TIMEOUT_S = 60.0

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


def ask_on_and_on(client: LycheeClient, query: str, over: threading.Event, outcomes: list[tuple[str, Any]]) -> None:
    while not over.is_set():
        try:
            outcomes.append((query, client.rerank(query, DOCUMENTS)))
        except Exception as error:
            outcomes.append((query, error))


def check(
    outcomes: list[tuple[str, Any]], expected: dict[str, tuple[Scores, Scores]], numbers: list[int | None]
) -> None:
    """See that no call failed, and that each answer is all of the model that it names."""
    failed = [repr(outcome) for _, outcome in outcomes if isinstance(outcome, Exception)]
    assert failed[:3] == []
    for query, seen in outcomes:
        place = numbers.index(seen.model_version)
        assert scores(seen) == pytest.approx(expected[query][place], abs=1e-5)
    assert {seen.model_version for _, seen in outcomes} == set(numbers)


def test_no_call_fails_and_none_is_mixed_while_models_change_all_the_time(
    servers: tuple[TritonServer, TritonServer], expected: dict[str, tuple[Scores, Scores]], protocol: Protocol
) -> None:
    both = connections(servers, protocol)
    transport = ReplacedServer(*both * CHANGES, after=REQUESTS_BETWEEN)
    over, outcomes = threading.Event(), []  # type: ignore[var-annotated]
    with LycheeClient(transport=transport, timeout_s=TIMEOUT_S, embedding_cache=None) as client:
        client.manifest()
        transport.arm()
        threads = [threading.Thread(target=ask_on_and_on, args=(client, query, over, outcomes)) for query in QUERIES]
        for thread in threads:
            thread.start()
        ends_at_s = time.monotonic() + TIMEOUT_S
        while transport.place < 2 * CHANGES - 1 and time.monotonic() < ends_at_s:
            time.sleep(0.05)
        over.set()
        for thread in threads:
            thread.join(TIMEOUT_S)
    assert transport.place == 2 * CHANGES - 1
    check(outcomes, expected, versions(servers))


def test_a_gateway_answers_with_the_new_model_once_its_golden_pairs_were_replayed(
    servers: tuple[TritonServer, TritonServer],
    expected: dict[str, tuple[Scores, Scores]],
    protocol: Protocol,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LYCHEE_STATE_DIR", str(tmp_path))
    transport = ReplacedServer(*connections(servers, protocol), after=5)
    numbers = versions(servers)

    async def main() -> None:
        service = Service(GatewaySettings(), transport=transport)
        await service.start()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                while service.health.state != "ready":
                    await asyncio.sleep(0.05)
            transport.arm()
            seen = []
            while not seen or seen[-1] != numbers[1]:
                answer = await service.rerank(QUERIES[0], DOCUMENTS, {})
                seen.append(answer.response.model_version)
                place = numbers.index(seen[-1])
                assert scores(answer.response) == pytest.approx(expected[QUERIES[0]][place], abs=1e-5)
                assert seen[-1] in service.health.verified
                assert (await service.manifest()).version == seen[-1]
            assert service.health.state == "ready"
            assert service.health.golden is not None
            assert service.health.golden.passed
        finally:
            await service.aclose()

    asyncio.run(main())
    for connection in transport.servers:
        connection.close()


@pytest.mark.parametrize("shared_memory", [False, True], ids=["", "shared memory"])
def test_another_server_on_the_same_port_is_another_model(
    repositories: tuple[Path, Path],
    expected: dict[str, tuple[Scores, Scores]],
    protocol: Protocol,
    shared_memory: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    query = QUERIES[0]
    first = TritonServer(repositories[0], config_name="cpu", **PORTS, log_path=tmp_path / "first.log", key=KEY)
    first.start()
    try:
        first.wait_until_ready()
        with LycheeClient(
            url(first, protocol),
            timeout_s=TIMEOUT_S,
            shared_memory=shared_memory,
        ) as client:
            assert scores(client.rerank(query, DOCUMENTS)) == pytest.approx(expected[query][0], abs=1e-5)
            first.stop()
            ports = {"http_port": first.http_port, "grpc_port": first.grpc_port, "metrics_port": first.metrics_port}
            with TritonServer(repositories[1], config_name="cpu", **ports, log_path=tmp_path / "second.log", key=KEY):
                client.wait_until_ready(TIMEOUT_S)
                for _ in range(2):
                    assert scores(client.rerank(query, DOCUMENTS)) == pytest.approx(expected[query][1], abs=1e-5)
                if shared_memory:
                    assert client._shared_memory is not None
                    assert client._shared_memory.active
    finally:
        first.stop()
