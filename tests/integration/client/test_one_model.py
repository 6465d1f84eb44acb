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
from lychee_client import AsyncLycheeClient, Image, ImageText, LycheeClient, ModelNotReadyError
from lychee_client.triton_key import KEY_VARIABLE
from lychee_server import TritonServer

from ..faults import FaultProxy
from .conftest import Protocol

pytestmark = pytest.mark.triton

KEY = "k" * 32
PORTS = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
QUERIES = ("the yellow cat", "a dog")
PHOTOS = [Image.from_pil(image) for image in make_images()]
DOCUMENTS = [*TEXTS, *PHOTOS, *(ImageText(photo, text) for photo, text in zip(PHOTOS, TEXTS, strict=True))]
TURNS = 6
PAUSE_S = 1.0
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


def address(server: TritonServer, protocol: Protocol) -> str:
    return server.grpc_url if protocol == "grpc" else server.http_url


def is_one_of(seen: Scores, models: tuple[Scores, Scores]) -> bool:
    """Say whether all scores are the one model's or all the other's; batches differ, and so the last bits."""
    return any(seen == pytest.approx(model, abs=1e-5) for model in models)


@pytest.mark.parametrize("reset", [True, False], ids=["connections end", "connections go on"])
@pytest.mark.parametrize("kind", [LycheeClient, AsyncLycheeClient], ids=["sync", "async"])
def test_no_call_fails_and_none_is_mixed_while_models_change(
    servers: tuple[TritonServer, TritonServer],
    expected: dict[str, tuple[Scores, Scores]],
    protocol: Protocol,
    kind: type[LycheeClient | AsyncLycheeClient],
    reset: bool,
) -> None:
    over = threading.Event()
    outcomes: list[tuple[str, Any]] = []

    def note(query: str, outcome: Any) -> None:
        outcomes.append((query, outcome))

    async def ask_async(url: str) -> None:
        async with AsyncLycheeClient(url, timeout_s=TIMEOUT_S, embedding_cache=None) as client:

            async def ask(query: str) -> None:
                while not over.is_set():
                    note(query, await _settle(client.rerank(query, DOCUMENTS)))

            await asyncio.gather(*(ask(query) for query in QUERIES))

    def ask_sync(client: LycheeClient, query: str) -> None:
        while not over.is_set():
            try:
                note(query, client.rerank(query, DOCUMENTS))
            except Exception as error:
                note(query, error)

    with FaultProxy(address(servers[0], protocol)) as proxy:
        url = proxy.address if protocol == "grpc" else f"http://{proxy.address}"
        client = None
        if kind is AsyncLycheeClient:
            threads = [threading.Thread(target=lambda: asyncio.run(ask_async(url)))]
        else:
            client = LycheeClient(url, timeout_s=TIMEOUT_S, embedding_cache=None)
            threads = [threading.Thread(target=ask_sync, args=(client, query)) for query in QUERIES]
        for thread in threads:
            thread.start()
        for turn in range(TURNS):
            time.sleep(PAUSE_S)
            proxy.lead_to(address(servers[(turn + 1) % 2], protocol), reset=reset)
        time.sleep(PAUSE_S)
        over.set()
        for thread in threads:
            thread.join(TIMEOUT_S)
        if client is not None:
            client.close()
    failures = [outcome for _, outcome in outcomes if isinstance(outcome, Exception)]
    if protocol == "http" and not reset:  # requests of one call meet both servers, on the connections of one pool
        assert all(isinstance(failure, ModelNotReadyError) for failure in failures)
        outcomes = [(query, seen) for query, seen in outcomes if not isinstance(seen, Exception)]
    else:
        assert failures == []
    assert len(outcomes) > TURNS
    mixed = [seen for query, seen in outcomes if not is_one_of(scores(seen), expected[query])]
    assert mixed == []
    for query, seen in outcomes:  # the model that an answer names is the one that scored
        named = seen.model.artifacts["text_encoder/model.onnx"]
        place = [_artifact(server) for server in servers].index(named)
        assert scores(seen) == pytest.approx(expected[query][place], abs=1e-5)
    if reset:
        assert len({seen.model.artifacts["text_encoder/model.onnx"] for _, seen in outcomes}) == 2


_artifacts: dict[str, str] = {}


def _artifact(server: TritonServer) -> str:
    if server.grpc_url not in _artifacts:
        with LycheeClient(server.grpc_url) as client:
            _artifacts[server.grpc_url] = client.manifest().artifacts["text_encoder/model.onnx"]
    return _artifacts[server.grpc_url]


async def _settle(call: Any) -> Any:
    try:
        return await call
    except Exception as error:
        return error


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
        url = address(first, protocol) if protocol == "grpc" else f"http://{first.http_url}"
        with LycheeClient(
            url,
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
