"""The service on the fake transport."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.dual_encoder import FakeTransport
from lychee_client import Image, InvalidInputError, LycheeClient, ModelNotReadyError, RelevantSpans, RerankOptions
from lychee_client.transports.base import InferRequest, Request
from lychee_server.errors import SettingsError
from lychee_server.gateway.limits import TooBusyError
from lychee_server.gateway.service import INTERNAL_ROUTE, Service
from lychee_server.gateway.settings import GatewaySettings

PHOTO = Image.from_numpy(np.zeros((40, 50), np.uint8))
DOCUMENTS = ["aaaa", "bbbb bbbb", "cccccc", "dd"]


@pytest.fixture(autouse=True)
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LYCHEE_CACHE_DIR", str(tmp_path))


class HeldTransport(FakeTransport):
    """Keeps the answers to requests for documents until the test lets them go."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[tuple[Future[Any], Request]] = []
        self.holding = False
        self.arrived = threading.Event()

    def send(self, request: Request, timeout_s: float | None) -> Future[Any]:
        """See Transport."""
        if not (self.holding and isinstance(request, InferRequest) and request.model_name == "scoring_head_text"):
            return super().send(request, timeout_s)
        future: Future[Any] = Future()
        self.held.append((future, request))
        self.arrived.set()
        return future

    def release(self) -> None:
        """Answer what is held, and hold nothing more."""
        self.holding = False
        for future, request in self.held:
            if not future.cancelled():
                future.set_result(super().send(request, None).result())


def run(work: Callable[[Service], Awaitable[Any]], transport: FakeTransport | None = None, **settings: Any) -> Service:
    """Do something with a started service, and return it closed."""

    async def main() -> Service:
        service = Service(GatewaySettings(**settings), transport=transport or FakeTransport())
        await service.start()
        try:
            await work(service)
        finally:
            await service.aclose()
        return service

    return asyncio.run(main())


def counted(service: Service, line: str) -> bool:
    return line in service.metrics.render()[0].decode().splitlines()


def test_results_are_those_of_the_client() -> None:
    with LycheeClient(transport=FakeTransport()) as client:

        async def compare(service: Service) -> None:
            calls: list[RerankOptions] = [
                {},
                {"top_n": 2},
                {"score_threshold": 0.74},
                {"score_threshold": 0.99, "min_results": 2, "top_n": 3},
                {"policy": "strict", "return_documents": True},
                {"relevant_spans": RelevantSpans(threshold=0.5)},
                {"relevant_spans": RelevantSpans(max_spans=1), "top_n": 2},
            ]
            for options in calls:
                expected = client.rerank("aaaa", DOCUMENTS, **options)
                answer = await service.rerank("aaaa", DOCUMENTS, options)
                assert answer.response.results == expected.results
                assert answer.response.unselected == ()

        run(compare)


def test_spans_are_looked_for_in_what_is_selected_while_all_is_counted() -> None:
    transport = FakeTransport()

    async def rank(service: Service) -> None:
        await service.rerank("aaaa", DOCUMENTS, {"top_n": 1, "relevant_spans": RelevantSpans()}, route="/v1/rerank")

    service = run(rank, transport)
    sent = [request for request in transport.requests if isinstance(request, InferRequest)]
    heads = [request.rows for request in sent if request.model_name == "scoring_head_text"]
    assert heads[-2:] == [len(DOCUMENTS), 1]
    metrics = service.metrics.render()[0].decode()
    assert f'lychee_gateway_relevance_score_count{{model="default"}} {len(DOCUMENTS)}.0' in metrics, metrics


def test_refused_documents_are_errors_at_the_callers_indexes() -> None:
    async def rank(service: Service) -> None:
        documents = [InvalidInputError("first"), "aaaa", "", InvalidInputError("fourth"), "bbbb"]
        response = (await service.rerank("aaaa", documents, {})).response
        assert [result.index for result in response.results] == [1, 4]
        assert [error.index for error in response.errors] == [0, 2, 3]
        assert response.errors[2].message == "fourth"

    run(rank)


def test_usage_counts_the_query_and_all_documents() -> None:
    async def rank(service: Service) -> None:
        everything = await service.rerank("aaaa", DOCUMENTS, {})
        first = await service.rerank("aaaa", DOCUMENTS, {"top_n": 1})
        assert first.usage == everything.usage
        assert first.usage.documents == 4
        assert everything.response.query is not None
        read = [everything.response.query, *everything.response.results]
        assert first.usage.tokens == sum(each.tokens or 0 for each in read)
        assert (first.usage.images, (await service.rerank(PHOTO, [PHOTO, "a"], {})).usage.images) == (0, 2)

    run(rank)


def test_the_request_id_reaches_the_transport() -> None:
    transport = FakeTransport()

    async def rank(service: Service) -> None:
        assert (await service.rerank("a", ["b"], {}, request_id="mine")).request_id == "mine"

    run(rank, transport)
    sent = [
        r.request_id for r in transport.requests if isinstance(r, InferRequest) and r.model_name == "scoring_head_text"
    ]
    sent = [request_id for request_id in sent if request_id is not None]  # without those of the watch
    assert sent
    assert all(request_id.startswith("mine/") for request_id in sent)


def test_too_many_calls_are_refused_and_counted() -> None:
    transport = HeldTransport()

    async def overload(service: Service) -> None:
        await service.health.require(5)
        transport.holding = True
        first = asyncio.create_task(service.rerank("a", ["b"], {}))
        await asyncio.to_thread(transport.arrived.wait, 5)
        with pytest.raises(TooBusyError) as caught:
            await service.rerank("a", ["b"], {}, request_id="mine")
        assert caught.value.request_id == "mine"
        transport.release()
        assert len((await first).response.results) == 1

    service = run(overload, transport, max_concurrency=1, max_waiting=0)
    assert counted(service, 'lychee_gateway_rejected_total{model="default",reason="busy"} 1.0')


def test_closing_lets_calls_finish() -> None:
    transport = HeldTransport()

    async def main() -> None:
        service = Service(GatewaySettings(), transport=transport)
        await service.start()
        await service.health.require(5)
        transport.holding = True
        call = asyncio.create_task(service.rerank("a", ["b"], {}))
        await asyncio.to_thread(transport.arrived.wait, 5)
        closing = asyncio.create_task(service.aclose())
        await asyncio.sleep(0)
        assert service.health.state == "stopping"
        assert not closing.done()
        transport.release()
        assert len((await call).response.results) == 1
        await closing

    asyncio.run(main())


def test_a_cancelled_call_cancels_its_requests_and_frees_its_slot() -> None:
    transport = HeldTransport()

    async def cancel(service: Service) -> None:
        await service.health.require(5)
        transport.holding = True
        call = asyncio.create_task(service.rerank("a", ["b"], {}))
        await asyncio.to_thread(transport.arrived.wait, 5)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert service.limit.running == 0
        assert transport.held[0][0].cancelled()
        transport.holding = False

    run(cancel, transport)


@pytest.mark.parametrize("count", [0, 3])
def test_no_documents_and_too_many_are_refused(count: int) -> None:
    async def rank(service: Service) -> None:
        with pytest.raises(InvalidInputError, match="documents"):
            await service.rerank("a", ["b"] * count, {})

    run(rank, max_documents=2)


def test_calls_fail_at_once_while_the_server_is_away() -> None:
    transport = FakeTransport()
    transport.live = False

    async def rank(service: Service) -> None:
        with pytest.raises(ModelNotReadyError):
            await service.rerank("a", ["b"], {})

    run(rank, transport)


def test_calls_that_are_no_request_of_their_own_count_documents_and_no_requests() -> None:
    async def rank(service: Service) -> None:
        await service.rerank("a", ["b"], {})

    service = run(rank)
    assert counted(service, f'lychee_gateway_documents_count{{model="default",route="{INTERNAL_ROUTE}"}} 1.0')
    assert b"\nlychee_gateway_requests_total{" not in service.metrics.render()[0]


def test_statistics_and_status_come_from_the_server() -> None:
    async def ask(service: Service) -> None:
        await service.rerank("a", ["b"], {})
        assert (await service.model_timings())["scoring_head_text"].requests >= 1
        assert (await service.server_status()).ready
        assert (await service.manifest()).model_id == "fake"

    run(ask)


@pytest.mark.parametrize("settings", [{"triton_url": "nonsense"}, {"calibration": Path("missing.json")}])
def test_settings_that_cannot_work_fail_at_the_start(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        Service(GatewaySettings(**settings))
