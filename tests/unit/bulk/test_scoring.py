"""Scoring pairs: calls, faults of a server and of a pair, patience, and one model for the whole run."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fakes.dual_encoder import FakeTransport
from lychee_bulk import scoring
from lychee_bulk.errors import ModelChangedError, ServerLostError
from lychee_bulk.images import ImageReader
from lychee_bulk.options import ScoringOptions, ServedModel
from lychee_bulk.results import Results
from lychee_bulk.rows import Pair, Side
from lychee_bulk.scoring import BatchScorer, find_model
from lychee_client import (
    AsyncLycheeClient,
    ConnectionFailedError,
    InferenceError,
    LycheeClient,
    ModelNotReadyError,
    RequestRejectedError,
)
from lychee_client.transports.base import InferRequest, Request

from .bulk_parts import make_model

OPTIONS = ScoringOptions(timeout_s=0.5, patience_s=30.0, documents_per_call=4, in_flight=3)
LONG = "x" * 40
"""A text that the fake model reads in another bucket of tokens than the short ones."""
Intercept = Callable[[Request], Any]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(scoring, "LONGEST_PAUSE_S", 0.001)


def make_pairs(*texts: tuple[str, str]) -> list[Pair]:
    return [Pair(row, 0, Side(query, ()), Side(text, ()), None) for row, (query, text) in enumerate(texts)]


def is_long(request: Request) -> bool:
    tokens = request.inputs.get("input_ids") if isinstance(request, InferRequest) else None
    return tokens is not None and tokens.shape[1] > 32


def run(
    pairs: list[Pair],
    intercept: Intercept | None = None,
    options: ScoringOptions = OPTIONS,
    model: ServedModel | None = None,
) -> tuple[Results, FakeTransport]:
    transport = FakeTransport(intercept)

    async def score() -> Results:
        async with AsyncLycheeClient(transport=transport) as client:
            with ThreadPoolExecutor(1) as threads:
                found = model or await find_model(client, options)
                return await BatchScorer(client, ImageReader("", (), threads), options, found).score(pairs)

    return asyncio.run(score()), transport


def test_pairs_get_the_scores_of_the_client(client: LycheeClient) -> None:
    pairs = make_pairs(*[(f"query {n % 3}", f"text {n}") for n in range(20)])
    results, _ = run(pairs)
    assert results.errors == {}
    for pair in pairs:
        expected = client.score(pair.query.text or "", pair.document.text or "")
        assert results.scored[pair.row, 0].relevance_score == pytest.approx(expected, abs=1e-6)


def test_a_query_is_encoded_once_for_so_many_documents() -> None:
    calls: list[int] = []
    pairs = make_pairs(*[(f"query {n % 2}", f"text {n}") for n in range(12)])

    async def score() -> None:
        async with AsyncLycheeClient(transport=FakeTransport()) as client:
            rerank = client.rerank

            async def count(query: Any, documents: Any, **options: Any) -> Any:
                calls.append(len(documents))
                return await rerank(query, documents, **options)

            model = await find_model(client, OPTIONS)
            client.rerank = count  # type: ignore[method-assign]
            with ThreadPoolExecutor(1) as threads:
                await BatchScorer(client, ImageReader("", (), threads), OPTIONS, model).score(pairs)

    asyncio.run(score())
    assert sorted(calls) == [2, 2, 4, 4]


def test_a_server_that_is_away_is_waited_for() -> None:
    left = 3

    def be_loading(request: Request) -> None:
        nonlocal left
        if is_long(request) and left:
            left -= 1
            raise ModelNotReadyError("it is loading")

    results, _ = run(make_pairs(("a", "b"), ("c", LONG)), be_loading)
    assert left == 0
    assert (len(results.scored), results.errors) == (2, {})


def test_a_server_that_is_away_for_too_long_ends_the_run() -> None:
    def be_away(request: Request) -> None:
        if is_long(request):
            raise ConnectionFailedError("it is away")

    options = ScoringOptions(timeout_s=0.1, patience_s=0.2)
    with pytest.raises(ExceptionGroup) as caught:
        run(make_pairs(("a", "b"), ("c", LONG)), be_away, options)
    assert caught.group_contains(ServerLostError, match=r"failed for 0.2 s.* what is scored stays")


def test_no_server_at_all_ends_the_run_before_it_begins() -> None:
    def be_away(request: Request) -> None:
        raise ConnectionFailedError("it is away")

    with pytest.raises(ServerLostError, match=r"no server for 0.01 s: .*it is away"):
        run([], be_away, ScoringOptions(timeout_s=0.1, patience_s=0.01))


def test_a_pair_on_which_the_server_fails_costs_only_itself() -> None:
    def fail(request: Request) -> None:
        if is_long(request):
            raise InferenceError("the kernel failed")

    results, _ = run(make_pairs(("a", "b"), ("a", LONG), ("a", "c"), ("d", "e")), fail)
    assert sorted(results.scored) == [(0, 0), (2, 0), (3, 0)]
    assert results.errors[1, 0].kind == "failed"
    assert "the kernel failed" in results.errors[1, 0].message


def test_a_server_that_fails_and_is_not_well_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    failures, doubts = 0, 0

    def fail(request: Request) -> None:
        nonlocal failures
        if is_long(request) and doubts < 3:
            failures += 1
            raise InferenceError("the kernel failed")

    async def is_well(_: BatchScorer) -> bool:
        nonlocal doubts
        doubts += 1
        return False

    monkeypatch.setattr(BatchScorer, "_is_well", is_well)
    results, _ = run(make_pairs(("a", LONG)), fail)
    assert (list(results.scored), results.errors) == ([(0, 0)], {})
    assert failures == scoring.DOUBTS + 2


def test_a_query_that_cannot_be_read_is_the_error_of_all_its_pairs() -> None:
    broken, good = Side(None, (b"no image",)), Side("a", ())
    pairs = [Pair(row, 0, query, Side("b", ()), None) for row, query in enumerate((broken, good, broken))]
    pairs += [Pair(3, 0, good, Side(None, (b"no image",)), None), Pair(4, 0, good, Side(None, ("x.jpg",)), None)]
    results, _ = run(pairs)
    assert list(results.scored) == [(1, 0)]
    assert {row: error.kind for (row, _), error in sorted(results.errors.items())} == {
        0: "invalid_input",
        2: "invalid_input",
        3: "invalid_input",
        4: "image_missing",
    }


def test_another_model_ends_the_run() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        run(make_pairs(("a", "b")), model=make_model())
    assert caught.group_contains(
        ModelChangedError, match=r"the server has fake fp32.*scores are of mini fp32, version 7"
    )


def test_no_more_calls_are_under_way_than_allowed() -> None:
    under_way, most = 0, 0

    async def score() -> None:
        async with AsyncLycheeClient(transport=FakeTransport()) as client:
            rerank = client.rerank

            async def count(*values: Any, **options: Any) -> Any:
                nonlocal under_way, most
                under_way += 1
                most = max(most, under_way)
                await asyncio.sleep(0.001)
                response = await rerank(*values, **options)
                under_way -= 1
                return response

            model = await find_model(client, OPTIONS)
            client.rerank = count  # type: ignore[method-assign]
            with ThreadPoolExecutor(1) as threads:
                scorer = BatchScorer(client, ImageReader("", (), threads), OPTIONS, model)
                tables = [make_pairs(*[(f"query {table} {n}", "b") for n in range(10)]) for table in range(2)]
                await asyncio.gather(*[scorer.score(pairs) for pairs in tables])

    asyncio.run(score())
    assert most == OPTIONS.in_flight


def test_the_model_of_a_run_has_the_instruction_in_effect() -> None:
    async def ask() -> ServedModel:
        async with AsyncLycheeClient(transport=FakeTransport()) as client:
            return await find_model(client, OPTIONS)

    model = asyncio.run(ask())
    assert (model.identity.model_id, model.identity.revision, model.instruction) == ("fake", "0" * 12, None)


def test_a_model_that_reads_no_texts_alone_is_found_by_its_manifest() -> None:
    def refuse(request: Request) -> None:
        if isinstance(request, InferRequest) and request.model_name == "text_encoder":
            raise RequestRejectedError("no texts")

    async def ask() -> ServedModel:
        async with AsyncLycheeClient(transport=FakeTransport(refuse)) as client:
            return await find_model(client, OPTIONS)

    assert asyncio.run(ask()).identity.model_id == "fake"
