"""Four clients, one answer: synchronous and asynchronous, over gRPC and HTTP, against a real Triton."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lychee_client import (
    AsyncLycheeClient,
    DeadlineExceededError,
    Image,
    ImageText,
    LycheeClient,
    RerankResponse,
    Timings,
)
from lychee_server import TritonServer

pytestmark = pytest.mark.triton

Call = Callable[..., Any]


def make_callers(server: TritonServer) -> dict[str, Call]:
    """Return four functions that call a method of a client of their own."""

    def synchronous(url: str, method: str, *arguments: Any, **options: Any) -> Any:
        with LycheeClient(url) as client:
            return getattr(client, method)(*arguments, **options)

    async def asynchronous(url: str, method: str, *arguments: Any, **options: Any) -> Any:
        async with AsyncLycheeClient(url) as client:
            return await getattr(client, method)(*arguments, **options)

    urls = {"grpc": server.grpc_url, "http": f"http://{server.http_url}"}
    callers: dict[str, Call] = {}
    for protocol, url in urls.items():
        callers[f"sync {protocol}"] = lambda *a, _url=url, **k: synchronous(_url, *a, **k)
        callers[f"async {protocol}"] = lambda *a, _url=url, **k: asyncio.run(asynchronous(_url, *a, **k))
    return callers


@pytest.fixture(scope="module")
def callers(server: TritonServer) -> dict[str, Call]:
    return make_callers(server)


@pytest.fixture
def documents(photos: Path) -> list[Any]:
    cat, coffee = (Image.from_path(photos / f"{name}.jpg") for name in ("cat", "coffee"))
    texts = ["小猫喜欢晒太阳", "A cup of espresso.", "", "word " * 600]
    return [*texts, cat, coffee, ImageText(cat, "虎斑猫"), Image.from_bytes(b"damaged"), "A cup of espresso."]


def comparable(response: RerankResponse) -> dict[str, Any]:
    errors = [(failed.index, failed.message, type(failed.error)) for failed in response.errors]
    plain = replace(response, timings=Timings(), errors=())
    return {"response": plain, "errors": errors}


def test_four_clients_give_one_answer(callers: dict[str, Call], documents: list[Any]) -> None:
    options = {"top_n": 5, "score_threshold": 0.9, "min_results": 5, "policy": "exploratory", "return_documents": True}
    answers = {name: comparable(call("rerank", "一只猫", documents, **options)) for name, call in callers.items()}
    reference = answers.pop("sync grpc")
    assert len(reference["response"].results) == 5
    assert [index for index, *_ in reference["errors"]] == [2, 7]
    for name, answer in answers.items():
        assert answer == reference, name


def test_bulk_gives_the_scores_of_interactive(callers: dict[str, Call], documents: list[Any]) -> None:
    for name, call in callers.items():
        interactive, bulk = (call("rerank", "一只猫", documents, priority=lane) for lane in ("interactive", "bulk"))
        assert [result.index for result in bulk.results] == [result.index for result in interactive.results], name
        assert [result.relevance_score for result in bulk.results] == pytest.approx(
            [result.relevance_score for result in interactive.results], abs=1e-4
        )


def test_four_clients_see_one_server(callers: dict[str, Call]) -> None:
    states = [call("server_status") for call in callers.values()]
    assert states[0].live
    assert states[0].ready
    assert {model.name for model in states[0].models} >= {"client_assets", "rerank_text", "text_encoder"}
    assert states == states[:1] * 4


def test_server_timings_name_what_was_computed(callers: dict[str, Call]) -> None:
    for name, call in callers.items():
        # Triton counts a request when it lets go of it: on a busy machine, that may come after the whole call.
        for attempt in range(5):
            text = f"a text that only {name} sends, {attempt}"
            first = call("rerank", "a query", [text], server_timings=True).timings
            assert first.server is not None
            if "text_encoder" in first.server:
                break
        encoder = first.server["text_encoder"]
        assert encoder.requests == 1
        assert encoder.compute_ms > 0


def test_logits_and_scores_fit_together(callers: dict[str, Call], documents: list[Any]) -> None:
    results = callers["async http"]("rerank", "一只猫", documents).results
    logits = np.array([result.logit for result in results])
    assert [result.relevance_score for result in results] == pytest.approx(1 / (1 + np.exp(-logits)), abs=1e-6)


def test_deadline_ends_every_client(callers: dict[str, Call]) -> None:
    texts = [f"{number} " + "many words " * 100 for number in range(64)]
    for name, call in callers.items():
        with pytest.raises(DeadlineExceededError) as caught:
            call("rerank", name, texts, timeout_s=0.3)
        assert caught.value.timeout_s == 0.3


def test_wait_until_ready_and_golden_pairs(callers: dict[str, Call]) -> None:
    for call in callers.values():
        call("wait_until_ready", 30)
        assert call("check_golden_pairs").passed
