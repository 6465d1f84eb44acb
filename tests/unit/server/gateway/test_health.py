"""Health on the fake transport: what makes a gateway ready, degraded and unavailable."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.dual_encoder import FakeTransport
from lychee_client import (
    DeadlineExceededError,
    InferenceError,
    InvalidInputError,
    InvalidOutputError,
    LycheeError,
    ModelNotReadyError,
    ServerOverloadedError,
)
from lychee_client.transports.base import InferRequest, InferResponse, Request
from lychee_server.gateway import health as module
from lychee_server.gateway import model_watch
from lychee_server.gateway.service import Service
from lychee_server.gateway.settings import GatewaySettings

WRONG_PAIRS = {
    "tolerance": 0.02,
    "pairs": [{"query": {"text": "a"}, "document": {"text": "b"}, "relevance_score": 0.0}],
}


@pytest.fixture(autouse=True)
def fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often, and keep the user's cache out of the tests."""
    monkeypatch.setenv("LYCHEE_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(module, "POLL_S", 0.01)


def run(work: Callable[[Service], Awaitable[None]], transport: FakeTransport | None = None, **settings: Any) -> None:
    async def main() -> None:
        service = Service(GatewaySettings(**settings), transport=transport or FakeTransport())
        await service.start()
        try:
            await work(service)
        finally:
            await service.aclose()

    asyncio.run(main())


async def reach(service: Service, state: str) -> None:
    async with asyncio.timeout(10):
        while service.health.state != state:
            await asyncio.sleep(0.005)


def probes(transport: FakeTransport) -> list[InferRequest]:
    return [
        request
        for request in transport.requests
        if isinstance(request, InferRequest) and (request.request_id or "").startswith("health-")
    ]


def test_ready_after_the_golden_pairs_matched() -> None:
    async def look(service: Service) -> None:
        assert service.health.state == "starting"
        assert (await service.health.check()).status == "unavailable"
        await reach(service, "ready")
        assert service.health.golden is not None
        assert service.health.golden.passed
        assert service.health.golden_checked_at is not None
        report = await service.health.check()
        assert report.status == "ok"
        assert report.latency_ms is not None

    run(look)


def test_golden_pairs_that_do_not_match_degrade_with_numbers() -> None:
    async def look(service: Service) -> None:
        await reach(service, "degraded")
        report = await service.health.check()
        assert report.status == "degraded"
        assert "1 of 1 golden pairs do not match" in str(report.reason)
        answer = await service.rerank("a", ["b"], {})  # still answered, but not in silence
        assert "golden pairs do not match" in answer.response.warnings[-1]

    run(look, FakeTransport(manifest={"golden_pairs": WRONG_PAIRS}))


def test_a_server_that_comes_late_is_waited_for() -> None:
    transport = FakeTransport()
    transport.live = False

    async def look(service: Service) -> None:
        with pytest.raises(ModelNotReadyError):
            await service.health.require(5)
        assert service.health.state == "starting"
        transport.live = True
        await reach(service, "ready")

    run(look, transport)


def test_a_lost_server_is_unavailable_until_its_golden_pairs_matched_again() -> None:
    transport = FakeTransport()

    async def look(service: Service) -> None:
        await reach(service, "ready")
        transport.live = False
        await reach(service, "unavailable")
        assert (await service.health.check()).status == "unavailable"
        with pytest.raises(ModelNotReadyError):
            await service.health.require(5)
        before = service.health.golden_checked_at
        transport.live = True
        await reach(service, "ready")
        assert service.health.golden_checked_at != before

    run(look, transport)


def test_another_model_is_preprocessed_for_after_it_came_back() -> None:
    first, second = FakeTransport(), FakeTransport(manifest={"model_id": "second", "revision": "2"})
    current = [first]

    class Switch(FakeTransport):
        def send(self, request: Request, timeout_s: float | None) -> Any:
            return current[0].send(request, timeout_s)

    async def look(service: Service) -> None:
        await reach(service, "ready")
        assert (await service.rerank("a", ["b"], {})).response.model.model_id == "fake"  # type: ignore[union-attr]
        first.live = False
        await reach(service, "unavailable")
        current[0] = second
        await reach(service, "ready")
        assert (await service.rerank("a", ["b"], {})).response.model.model_id == "second"  # type: ignore[union-attr]

    run(look, Switch())


def test_a_failing_call_makes_the_gateway_look_again() -> None:
    broken = [False]

    def intercept(request: Request) -> InferResponse | None:
        if broken[0] and isinstance(request, InferRequest) and request.model_name == "scoring_head_text":
            raise ModelNotReadyError("unloaded")
        return None

    async def look(service: Service) -> None:
        await reach(service, "ready")
        before = service.health.golden_checked_at
        broken[0] = True
        with pytest.raises(ModelNotReadyError):
            await service.rerank("a", ["b"], {})
        broken[0] = False
        async with asyncio.timeout(10):
            while service.health.golden_checked_at == before:
                await asyncio.sleep(0.005)

    run(look, FakeTransport(intercept))


ENCODERS = ("text_encoder", "vision_encoder", "scoring_head_image")


class Failing:
    """Fails the requests to a model while it is told to, as a dead or an overloaded one does."""

    def __init__(self, model_name: str, error: LycheeError) -> None:
        self.model_name, self.error, self.active = model_name, error, False

    def __call__(self, request: Request) -> None:
        if self.active and isinstance(request, InferRequest) and request.model_name == self.model_name:
            raise self.error


@pytest.mark.parametrize("model_name", ENCODERS)
def test_a_dead_model_degrades_until_it_is_back(model_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_watch, "PROOF_S", 0.05)
    failing = Failing(model_name, InferenceError("its process is not healthy", model_name=model_name))

    async def look(service: Service) -> None:
        await reach(service, "ready")
        failing.active = True
        await reach(service, "degraded")
        assert f"{model_name} does not answer: its process is not healthy" in str(service.health.reason)
        report = await service.health.check()
        assert (report.status, report.reason) == ("degraded", service.health.reason)
        metrics = service.metrics.render()[0].decode()
        assert 'lychee_gateway_ready{model="default"} 0.0' in metrics
        assert 'lychee_gateway_triton_up{model="default"} 0.0' in metrics
        if model_name != "text_encoder":
            answer = await service.rerank("a", ["b"], {})  # needs other models
            assert (len(answer.response.results), answer.response.warnings) == (1, ())
        failing.active = False
        await reach(service, "ready")
        assert 'lychee_gateway_triton_up{model="default"} 1.0' in service.metrics.render()[0].decode()

    run(look, FakeTransport(failing))


def test_health_notices_a_dead_model_at_once() -> None:
    failing = Failing("vision_encoder", InferenceError("its process is not healthy"))

    async def look(service: Service) -> None:
        await reach(service, "ready")
        failing.active = True  # the last proof is fresh
        report = await service.health.check()
        assert report.status == "degraded"
        assert "vision_encoder does not answer" in str(report.reason)
        assert service.health.state == "degraded"

    run(look, FakeTransport(failing))


def test_a_model_that_never_answered_keeps_the_gateway_from_starting() -> None:
    failing = Failing("vision_encoder", InferenceError("its process is not healthy"))
    failing.active = True

    async def look(service: Service) -> None:
        with pytest.raises(ModelNotReadyError, match="vision_encoder"):
            await service.health.require(5)
        assert service.health.state == "starting"

    run(look, FakeTransport(failing))


@pytest.mark.parametrize("error", [ServerOverloadedError("full"), DeadlineExceededError("late")])
def test_a_busy_model_is_dead_only_after_a_long_silence(error: LycheeError, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_watch, "PROOF_S", 0.01)
    monkeypatch.setattr(model_watch, "SILENCE_S", 3600.0)
    failing = Failing("vision_encoder", error)

    async def look(service: Service) -> None:
        await reach(service, "ready")
        failing.active = True
        await asyncio.sleep(0.2)
        assert service.health.state == "ready"
        monkeypatch.setattr(model_watch, "SILENCE_S", 0.1)
        monkeypatch.setattr(model_watch, "_SLOWNESS", 0)
        await reach(service, "degraded")
        assert "vision_encoder does not answer: no answer for" in str(service.health.reason)

    run(look, FakeTransport(failing))


def test_calls_that_are_answered_are_proof_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    async def look(service: Service) -> None:
        await reach(service, "ready")
        monkeypatch.setattr(model_watch, "PROOF_S", 0.5)
        before = len([r for r in transport.requests if isinstance(r, InferRequest)])
        async with asyncio.timeout(30):
            for _ in range(50):
                await service.rerank("a", ["b"], {})
                await asyncio.sleep(0.01)
        sent = [r for r in transport.requests if isinstance(r, InferRequest)][before:]
        watched = {r.model_name for r in sent if r.request_id is None}
        assert "text_encoder" not in watched
        assert "scoring_head_text" not in watched

    transport = FakeTransport()
    run(look, transport)


def test_probes_share_one_pair_that_no_cache_has_seen() -> None:
    transport = FakeTransport()

    async def look(service: Service) -> None:
        await reach(service, "ready")
        reports = await asyncio.gather(*(service.health.check() for _ in range(5)))
        assert len({report.latency_ms for report in reports}) == 1
        assert await service.health.check() == reports[0]

    run(look, transport)
    assert [request.model_name for request in probes(transport)] == ["text_encoder", "scoring_head_text"]


def test_a_slow_pair_degrades() -> None:
    async def look(service: Service) -> None:
        await reach(service, "ready")
        report = await service.health.check()
        assert report.status == "degraded"
        assert "the limit is 1e-06 ms" in str(report.reason)
        assert service.health.state == "ready"

    run(look, health_latency_ms=1e-6)


def test_a_pair_that_never_ends_degrades() -> None:
    def intercept(request: Request) -> InferResponse | None:
        if isinstance(request, InferRequest) and (request.request_id or "").startswith("health-"):
            raise DeadlineExceededError("late")
        return None

    async def look(service: Service) -> None:
        await reach(service, "ready")
        report = await service.health.check()
        assert report.status == "degraded"
        assert "was not scored within" in str(report.reason)

    run(look, FakeTransport(intercept))


def test_a_stopping_gateway_is_not_ready_again() -> None:
    async def look(service: Service) -> None:
        await reach(service, "ready")
        service.begin_stopping()
        await service.health.recheck()
        assert service.health.state == "stopping"
        assert (await service.health.check()).status == "unavailable"

    run(look)


def test_recheck_returns_after_a_new_replay() -> None:
    async def look(service: Service) -> None:
        await reach(service, "ready")
        before = service.health.golden_checked_at
        await service.health.recheck()
        assert service.health.golden_checked_at != before

    run(look)


class Overflowing(FakeTransport):
    """Gives NaN for the text "spoil" once told so; for every text, with `everything`."""

    def __init__(self, everything: bool = False, **manifest: Any) -> None:
        super().__init__(self._spoil, manifest)
        self.broken = False
        self._everything = everything
        self._reference = FakeTransport()

    def _spoil(self, request: Request) -> InferResponse | None:
        if not self.broken or not isinstance(request, InferRequest) or request.model_name != "text_encoder":
            return None
        answer = self._reference.send(request, None).result()
        lost = request.inputs["attention_mask"].sum(axis=1) == len("passage: spoil") + 2
        embeddings = answer.outputs["text_embedding"].copy()
        embeddings[slice(None) if self._everything else lost] = np.nan
        return InferResponse({"text_embedding": embeddings})


def counted(service: Service, line: str) -> bool:
    return line in service.metrics.render()[0].decode().splitlines()


def test_document_without_a_number_has_the_golden_pairs_replayed_at_once_but_not_all_the_time() -> None:
    transport = Overflowing()

    async def look(service: Service) -> None:
        await reach(service, "ready")
        transport.broken = True
        before = service.health.golden_checked_at
        response = (await service.rerank("query", [InvalidInputError("bad"), "spoil", "long enough"], {})).response
        assert [result.index for result in response.results] == [2]
        assert [(failed.index, type(failed.error)) for failed in response.errors] == [
            (0, InvalidInputError),
            (1, InvalidOutputError),
        ]
        assert response.errors[1].message.startswith("text_encoder of fake in fp32 gave NaN")
        assert str(response.errors[1].error).startswith("document 1: ")
        assert counted(service, 'lychee_gateway_document_errors_total{model="default",reason="invalid_output"} 1.0')
        assert counted(service, 'lychee_gateway_document_errors_total{model="default",reason="invalid_input"} 1.0')
        async with asyncio.timeout(10):
            while service.health.golden_checked_at == before:
                await asyncio.sleep(0.005)
        assert service.health.state == "ready"  # it was the document's fault
        replayed = service.health.golden_checked_at
        for _ in range(5):
            assert (await service.rerank("query", ["spoil", "long enough"], {})).response.errors
            await asyncio.sleep(0.05)
        assert service.health.golden_checked_at == replayed

    run(look, transport)


def test_golden_pairs_without_a_number_degrade_and_are_told_in_every_answer() -> None:
    pairs = [{"query": {"text": "a query"}, "document": {"text": "spoil"}, "relevance_score": 0.5}]
    transport = Overflowing(golden_pairs={"tolerance": 1.0, "pairs": pairs})

    async def look(service: Service) -> None:
        await reach(service, "ready")
        transport.broken = True
        await service.rerank("query", ["spoil", "long enough"], {})
        await reach(service, "degraded")
        assert "1 of 1 golden pairs do not match (1 got no number)" in str(service.health.reason)
        response = (await service.rerank("query", ["long enough"], {})).response
        assert "got no number" in response.warnings[-1]
        transport.broken = False
        await service.health.recheck()
        await reach(service, "ready")

    run(look, transport)


def test_model_that_gives_no_numbers_at_all_fails_calls_and_degrades() -> None:
    transport = Overflowing(everything=True)

    async def look(service: Service) -> None:
        await reach(service, "ready")
        transport.broken = True
        with pytest.raises(InvalidOutputError, match="gave NaN"):
            await service.rerank("query", ["a", "b"], {})
        report = await service.health.check()
        assert report.status == "degraded"
        assert "gave NaN" in str(report.reason)

    run(look, transport)
