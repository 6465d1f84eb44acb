"""A gateway whose Triton is replaced by one with another model, while the gateway runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes.dual_encoder import FakeTransport
from fakes.replaced_server import ReplacedServer, make_server
from lychee_client import LycheeClient, ModelNotReadyError
from lychee_server.gateway import health as module
from lychee_server.gateway import model_watch
from lychee_server.gateway.pairs import MOST_MODELS, score_pairs
from lychee_server.gateway.service import Service
from lychee_server.gateway.service_answer import ServiceAnswer
from lychee_server.gateway.settings import GatewaySettings

OLD, NEW = 101, 202
DOCUMENTS = ["aaaa", "bbbb bbbb", "cccccc", "dd"]
WRONG = {"tolerance": 0.02, "pairs": [{"query": {"text": "a"}, "document": {"text": "b"}, "relevance_score": 0.0}]}


@pytest.fixture(autouse=True)
def fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often, and keep the user's folders out of the tests."""
    monkeypatch.setenv("LYCHEE_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("LYCHEE_STATE_DIR", str(tmp_path))
    monkeypatch.setattr(module, "POLL_S", 0.01)


def run(work: Callable[[Service], Awaitable[None]], transport: Any, **settings: Any) -> Service:
    async def main() -> Service:
        service = Service(GatewaySettings(**settings), transport=transport)
        await service.start()
        try:
            async with asyncio.timeout(20):
                while service.health.state == "starting":
                    await asyncio.sleep(0.005)
            transport.arm()
            await work(service)
        finally:
            await service.aclose()
        return service

    return asyncio.run(main())


def scores(server: FakeTransport) -> dict[int, float]:
    with LycheeClient(transport=server, embedding_cache=None) as client:
        return {each.index: each.relevance_score for each in client.rerank("aaaa", DOCUMENTS)}


def shown_model(service: Service) -> list[str]:
    return [line for line in service.metrics.render()[0].decode().splitlines() if "_build_info{" in line]


@pytest.mark.parametrize("after", [0, 1, 3, 5])
def test_a_call_is_answered_by_the_new_model_once_its_golden_pairs_were_replayed(after: int) -> None:
    expected = scores(make_server(NEW, weights=5))
    server = ReplacedServer(make_server(OLD), make_server(NEW, weights=5, revision="new"), after=after)

    async def look(service: Service) -> None:
        assert (await service.manifest()).version == OLD
        checked = service.health.golden_checked_at
        assert OLD in service.health.verified
        while True:  # the gateway's own looks take requests too
            answer = await service.rerank("aaaa", DOCUMENTS, {})
            if answer.response.model_version == NEW:
                break
        assert {each.index: each.relevance_score for each in answer.response.results} == expected
        assert NEW in service.health.verified
        assert service.health.golden_checked_at != checked
        assert (await service.manifest()).version == NEW
        assert (await service.manifest()).revision == "new"
        assert 'revision="new"' in shown_model(service)[0]
        assert service.health.state == "ready"

    run(look, server)


def test_a_new_model_whose_golden_pairs_do_not_match_says_so_with_its_first_answer() -> None:
    server = ReplacedServer(make_server(OLD), make_server(NEW, weights=5, golden_pairs=WRONG))

    async def look(service: Service) -> None:
        answer = await service.rerank("aaaa", DOCUMENTS, {})
        assert answer.response.model_version == NEW
        assert any("golden pairs do not match" in warning for warning in answer.response.warnings)
        assert service.health.state == "degraded"

    run(look, server)


def test_no_answer_comes_from_a_model_that_could_not_be_checked_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    server = ReplacedServer(make_server(OLD), make_server(NEW, weights=5))

    async def look(service: Service) -> None:
        async def never() -> None:
            await asyncio.sleep(60)

        monkeypatch.setattr(service.health, "recheck", never)
        monkeypatch.setattr(service.health, "verified", {OLD})
        with pytest.raises(ModelNotReadyError, match=f"version {NEW}, and its golden pairs were not replayed"):
            await service.rerank("aaaa", DOCUMENTS, {"timeout_s": 1.0})

    run(look, server)


def test_an_idle_gateway_notices_the_new_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_watch, "PROOF_S", 0.02)
    server = ReplacedServer(make_server(OLD), make_server(NEW, weights=5, revision="new"))

    async def look(service: Service) -> None:
        async with asyncio.timeout(20):
            while (await service.manifest()).version != NEW:
                await asyncio.sleep(0.01)
        assert NEW in service.health.verified

    run(look, server)


def answer_of(version: int) -> ServiceAnswer:
    with LycheeClient(transport=make_server(version)) as client:
        return ServiceAnswer(client.rerank("aaaa", ["b"]), "id")


def score_with(*versions: int) -> tuple[list[Any], int]:
    """Score two pairs whose calls are answered by these versions, in turn."""
    answers = {version: answer_of(version) for version in set(versions)}
    asked = 0

    async def call(query: object, documents: Sequence[object]) -> ServiceAnswer:
        nonlocal asked
        asked += 1
        return answers[versions[min(asked, len(versions)) - 1]]

    made = asyncio.run(score_pairs(call, ["a", "b"], ["x", "y"]))
    return made, asked


def test_pairs_of_one_request_are_scored_by_one_model() -> None:
    made, asked = score_with(OLD, NEW, NEW, NEW)
    assert [answer.response.model_version for _, answer in made] == [NEW, NEW]
    assert asked == 4
    assert score_with(OLD, OLD)[1] == 2


def test_pairs_are_not_scored_for_ever() -> None:
    with pytest.raises(ModelNotReadyError, match=f"{MOST_MODELS} times"):
        score_with(*[OLD, NEW] * MOST_MODELS)
