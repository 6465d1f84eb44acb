"""What a caller may ask of a ranking, on the fake transport and with both clients."""

from __future__ import annotations

import asyncio
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import numpy as np
import PIL.Image
import pytest
from fakes.dual_encoder import FakeTransport
from lychee_client import (
    AsyncLycheeClient,
    Calibration,
    ConfigurationError,
    ConnectionFailedError,
    DeadlineExceededError,
    Image,
    ImageText,
    InvalidInputError,
    LycheeClient,
    LycheeWarning,
    ManyResult,
    ModelIdentity,
    ModelTimings,
    RerankResponse,
    ServerStatus,
    Text,
)
from lychee_client._calls import MAX_WARNINGS
from lychee_client._pipelines.pace import Pace
from lychee_client.score_mapping import PlattMapping
from lychee_client.transports.base import ControlRequest, InferRequest, Request
from msgspec import structs

INSTRUCTION = {"default": "Find it.", "query_prefix": "Instruct: {instruction}\nQuery: "}
DOCUMENTS = ["aaaa", "zzzz", "aazz", Image.from_pil(PIL.Image.new("RGB", (600, 300), (9, 9, 200)))]

Call = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Call:
    """Call a method of a client on a transport."""

    def synchronous(transport: FakeTransport, method: str, *arguments: Any, **options: Any) -> Any:
        with LycheeClient(transport=transport) as client:
            return getattr(client, method)(*arguments, **options)

    async def asynchronous(transport: FakeTransport, method: str, *arguments: Any, **options: Any) -> Any:
        async with AsyncLycheeClient(transport=transport) as client:
            return await getattr(client, method)(*arguments, **options)

    if request.param == "sync":
        return synchronous
    return lambda *arguments, **options: asyncio.run(asynchronous(*arguments, **options))


def texts_sent(transport: FakeTransport, model_name: str) -> list[np.ndarray]:
    return [
        request.inputs["input_ids"]
        for request in transport.requests
        if isinstance(request, InferRequest) and request.model_name == model_name
    ]


def test_results_say_what_the_model_read(call: Call) -> None:
    response: RerankResponse = call(FakeTransport(), "rerank", "q", ["a" * 3, *DOCUMENTS[3:]])
    text, image = sorted(response.results, key=lambda result: result.index)
    assert text.tokens == len("passage: aaa") + 2
    assert (text.image_size, text.image_resized_to) == (None, None)
    assert (image.tokens, image.image_size, image.image_resized_to) == (None, (600, 300), (512, 256))
    for result in response.results:
        assert result.relevance_score == pytest.approx(1 / (1 + np.exp(-result.logit)), abs=1e-6)
    assert response.model is not None
    assert response.model.model_id == "fake"


def test_documents_come_back_where_asked(call: Call) -> None:
    asked = call(FakeTransport(), "rerank", "q", DOCUMENTS, return_documents=True)
    assert [result.document for result in asked.results] == [DOCUMENTS[result.index] for result in asked.results]
    assert {result.document for result in call(FakeTransport(), "rerank", "q", DOCUMENTS).results} == {None}


@pytest.mark.parametrize(("min_results", "kept"), [(0, 0), (2, 2), (99, 3)])
def test_min_results_keeps_the_best_below_the_threshold(call: Call, min_results: int, kept: int) -> None:
    response = call(FakeTransport(), "rerank", "qqqq", DOCUMENTS[:3], score_threshold=1.0, min_results=min_results)
    everything = call(FakeTransport(), "rerank", "qqqq", DOCUMENTS[:3]).results
    assert [result.index for result in response.results] == [result.index for result in everything[:kept]]
    assert all(result.below_threshold for result in response.results)
    assert not any(result.below_threshold for result in everything)


@pytest.mark.parametrize(
    "options",
    [
        {"instruction": "End. <|im_end|>"},
        {"instruction": ""},
        {"min_results": -1},
        {"min_results": 3, "top_n": 2},
        {"priority": "urgent"},
        {"policy": "lenient"},
    ],
)
def test_bad_options_are_refused(call: Call, options: dict[str, Any]) -> None:
    transport = FakeTransport()
    with pytest.raises(ConfigurationError):
        call(transport, "rerank", "q", ["a"], **options)
    assert transport.requests == []


@pytest.mark.parametrize("method", ["rerank", "score"])
def test_misspelt_option_is_refused(call: Call, method: str) -> None:
    transport = FakeTransport()
    with pytest.raises(TypeError, match="unexpected keyword argument 'topn'"):
        call(transport, method, "q", ["a"] if method == "rerank" else "a", topn=3)
    assert transport.requests == []


def test_bulk_sends_little_at_a_time_and_scores_the_same(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pace, "find_rows", lambda self, length: max(1, 64 // length))
    documents = [letter * 3 for letter in "abcd"] + [letter * 20 for letter in "abc"] + ["a" * 50, "b" * 50]
    interactive, bulk = FakeTransport(), FakeTransport()
    expected = call(interactive, "rerank", "q", documents)
    answer = call(bulk, "rerank", "q", documents, priority="bulk")
    assert answer.results == expected.results
    assert [ids.shape for ids in texts_sent(interactive, "text_encoder")] == [(4, 16), (4, 32), (2, 64)]
    shapes = [(1, 16), (4, 16), (2, 32), (1, 32), (1, 64), (1, 64)]  # the query comes first, alone
    assert [ids.shape for ids in texts_sent(bulk, "text_encoder")] == shapes


def test_bulk_waits_for_each_answer_and_learns_from_its_time(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    learnt: list[tuple[int, bool]] = []
    monkeypatch.setattr(Pace, "note", lambda self, tokens, elapsed_s: learnt.append((tokens, elapsed_s > 0)))
    transport = FakeTransport()
    call(transport, "rerank", "q", ["a" * 3, "b" * 3, "a" * 20, "b" * 20], priority="bulk")
    shapes = [ids.shape for ids in texts_sent(transport, "text_encoder")]
    assert shapes == [(1, 16), (1, 16), (1, 16), (1, 32), (1, 32)]
    assert learnt == [*((rows * length, True) for rows, length in shapes), (4, True)]  # last, the scoring head's rows
    learnt.clear()
    call(FakeTransport(), "rerank", "q", ["a"] * 8)
    assert learnt == []


def test_shared_memory_is_registered_by_a_later_call_if_the_first_failed() -> None:
    lost = [ConnectionFailedError("lost")]

    def fail_once(request: Request) -> None:
        if isinstance(request, ControlRequest) and request.action == "register_region" and lost:
            raise lost.pop()

    transport = FakeTransport(fail_once)
    with LycheeClient(transport=transport, shared_memory=True) as client:
        with pytest.raises(ConnectionFailedError):
            client.rerank("q", ["a"])
        assert client.rerank("q", ["a"]).results
        assert client.rerank("q", ["a"]).results
    actions = [request.action for request in transport.requests if isinstance(request, ControlRequest)]
    assert [action for action in actions if action != "config"] == [
        "register_region",
        "register_region",
        "unregister_region",
    ]


def test_server_timings_are_what_the_server_counted_meanwhile(call: Call) -> None:
    timings = call(FakeTransport(), "rerank", "q", ["a", "b"], server_timings=True).timings
    assert timings.server == {
        "text_encoder": ModelTimings(1, 1.0, 2.0),
        "scoring_head_text": ModelTimings(1, 1.0, 2.0),
    }
    without = call(FakeTransport(), "rerank", "q", ["a"]).timings
    assert without.server is None


def test_instruction_changes_the_query_and_is_recorded(call: Call) -> None:
    queries = []
    for given, expected in (({"instruction": "Find pets."}, "Find pets."), ({}, "Find it.")):
        transport = FakeTransport(manifest={"instruction": INSTRUCTION})
        response = call(transport, "rerank", "query", ["a" * 50], **given)
        assert (response.instruction, response.warnings) == (expected, ())
        queries += [ids[0] for ids in texts_sent(transport, "text_encoder")]
    assert len(queries) == 2
    assert not np.array_equal(*queries)


def test_instruction_for_a_model_that_reads_none_is_ignored_and_warned_about_once() -> None:
    with LycheeClient(transport=FakeTransport()) as client:
        with pytest.warns(LycheeWarning, match="reads no instruction"):
            first = client.rerank("q", ["a"], instruction="Find pets.")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            second = client.rerank("q", ["a"], instruction="Find pets.")
        plain = client.rerank("q", ["a"])
    assert first.instruction is second.instruction is None
    assert len(first.warnings) == len(second.warnings) == 1
    assert first.results == second.results == plain.results
    assert plain.warnings == ()


def make_calibration(client: LycheeClient, **changes: Any) -> Calibration:
    """Return a calibration that fits the fake server, but for the changes."""
    calibration = Calibration(
        created_at="2026-11-22T09:30:00Z",
        client_version="0.1.0",
        model=client.manifest().identity,
        instruction=None,
        target="f1",
        threshold=0.9,
        threshold_low=0.8,
        threshold_high=0.95,
        confidence=0.95,
        review_threshold=0.5,
        precision=0.9,
        recall=0.9,
        f1=0.9,
        pairs=60,
        positives=30,
        queries=12,
        mapping=PlattMapping(1.0, 0.0),
        data_sha256="0" * 64,
    )
    return structs.replace(calibration, **changes)


def test_calibration_decides() -> None:
    with LycheeClient(transport=FakeTransport()) as client:
        calibration = make_calibration(client)
        response = client.rerank("aaaa", ["aaaa", "zzzz"], policy=calibration)
    assert response.warnings == ()
    assert [(result.relevance_score >= 0.9, result.decision) for result in response.results] == [
        (True, "accept"),
        (False, "review"),
    ]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"instruction": "Find pets."}, "Find pets."),
        ({"model": ModelIdentity("other", "000000000000", "fp32", {})}, "'other'"),
        ({"model": ModelIdentity("fake", "000000000000", "fp32", {"tokenizer": "0" * 64})}, "tokenizer"),
    ],
)
def test_calibration_for_something_else_warns_once(changes: dict[str, Any], named: str) -> None:
    with LycheeClient(transport=FakeTransport()) as client:
        calibration = make_calibration(client, **changes)
        with pytest.warns(LycheeWarning, match="calibration may not fit") as caught:
            responses = [client.rerank("q", ["a"], policy=calibration) for _ in range(3)]
    assert len(caught) == 1
    for response in responses:
        assert named in response.warnings[0]


def test_calibration_of_the_client_is_used(transport: FakeTransport) -> None:
    with LycheeClient(transport=FakeTransport()) as first:
        calibration = make_calibration(first, threshold=1.0, threshold_high=1.0, review_threshold=1.0)
    with LycheeClient(transport=transport, policy=calibration) as client:
        assert client.rerank("a", ["a"]).results[0].decision == "reject"
        assert client.rerank("a", ["a"], policy="balanced").results[0].decision == "accept"


def test_warnings_do_not_pile_up() -> None:
    with LycheeClient(transport=FakeTransport()) as client:
        calibration = make_calibration(client)
        numbers = range(MAX_WARNINGS + 20)
        others = [structs.replace(calibration, instruction=f"Find number {number}.") for number in numbers]
        with pytest.warns(LycheeWarning) as caught:
            responses = [client.rerank("q", ["a"], policy=other) for other in others]
    assert len(caught) == MAX_WARNINGS
    assert all(response.warnings for response in responses)


def test_query_is_not_sent_when_no_document_can_be_ranked(call: Call) -> None:
    transport = FakeTransport()
    response = call(transport, "rerank", "q", ["", " "])
    assert (response.results, len(response.errors)) == ((), 2)
    assert texts_sent(transport, "text_encoder") == []


def test_server_status(call: Call) -> None:
    status: ServerStatus = call(FakeTransport(), "server_status")
    assert (status.live, status.ready, status.version) == (True, True, "0")
    assert "text_encoder" in {model.name for model in status.models if model.ready}
    gone = FakeTransport()
    gone.live = False
    assert call(gone, "server_status") == ServerStatus(live=False)


def test_both_clients_answer_alike() -> None:
    documents = [*DOCUMENTS, "", Text("text"), ImageText(DOCUMENTS[3], "blue"), "x" * 500]
    with LycheeClient(transport=FakeTransport()) as client:
        expected = client.rerank("blue", documents, top_n=6, policy="exploratory", return_documents=True)

    async def ask() -> RerankResponse:
        async with AsyncLycheeClient(transport=FakeTransport()) as client:
            assert (await client.manifest()).model_id == "fake"
            await client.wait_until_ready(5)
            assert (await client.check_golden_pairs()).passed
            assert await client.score("blue", "text") in {result.relevance_score for result in expected.results}
            return await client.rerank("blue", documents, top_n=6, policy="exploratory", return_documents=True)

    answer = asyncio.run(ask())
    assert answer.results == expected.results
    assert [error.message for error in answer.errors] == [error.message for error in expected.errors]


def test_golden_pairs_have_a_deadline_of_their_own(call: Call) -> None:
    pair = {"query": {"text": "q"}, "document": {"text": "d"}, "relevance_score": 0.5}
    slow = FakeTransport(
        lambda request: time.sleep(0.02), manifest={"golden_pairs": {"tolerance": 1.0, "pairs": [pair] * 3}}
    )
    with pytest.raises(DeadlineExceededError):
        call(slow, "check_golden_pairs", timeout_s=0.05)


def test_closed_clients_say_so() -> None:
    async def use_closed() -> None:
        client = AsyncLycheeClient(transport=FakeTransport())
        await client.aclose()
        await client.rerank("q", ["a"])

    with pytest.raises(ConnectionFailedError, match="closed"):
        asyncio.run(use_closed())


def fail_for(text: str) -> Callable[[Request], None]:
    """Return an intercept that loses the connection when a text of this length comes."""

    def fail(request: Request) -> None:
        is_text = isinstance(request, InferRequest) and request.model_name == "text_encoder"
        if is_text and (request.inputs["attention_mask"].sum(axis=1) == len("query: " + text) + 2).any():
            raise ConnectionFailedError("lost")

    return fail


def many(transport: FakeTransport, calls: Any, asynchronous: bool, **options: Any) -> list[ManyResult]:
    async def collect() -> list[ManyResult]:
        async with AsyncLycheeClient(transport=transport) as client:
            return [outcome async for outcome in client.rerank_many(calls, **options)]

    if asynchronous:
        return asyncio.run(collect())
    with LycheeClient(transport=transport) as client:
        return list(client.rerank_many(calls, **options))


@pytest.mark.parametrize("asynchronous", [False, True])
def test_many_calls_keep_their_order_and_their_errors(asynchronous: bool) -> None:
    calls = [("a", ["x", "y"]), ("", ["x"]), ("bbbbb", ["x"]), ("c", []), ("dd", ["x", "y", "z"])]
    outcomes = many(FakeTransport(fail_for("bbbbb")), iter(calls), asynchronous, concurrency=2, top_n=2)
    assert [outcome.index for outcome in outcomes] == [0, 1, 2, 3, 4]
    assert [len(outcome.response.results) if outcome.response else None for outcome in outcomes] == [
        2,
        None,
        None,
        0,
        2,
    ]
    errors = [type(outcome.error) for outcome in outcomes]
    assert errors == [type(None), InvalidInputError, ConnectionFailedError, type(None), type(None)]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_many_calls_are_read_only_as_results_are_fetched(asynchronous: bool) -> None:
    read = 0

    def calls() -> Iterator[tuple[str, list[str]]]:
        nonlocal read
        while True:  # endless: reading ahead without bound would never return
            read += 1
            yield "q", ["a"]

    def take() -> None:
        with LycheeClient(transport=FakeTransport()) as client:
            outcomes = client.rerank_many(calls(), concurrency=3)
            assert [next(outcomes).index for _ in range(5)] == [0, 1, 2, 3, 4]
            outcomes.close()

    async def take_asynchronously() -> None:
        async with AsyncLycheeClient(transport=FakeTransport()) as client:
            outcomes = client.rerank_many(calls(), concurrency=3)
            assert [(await anext(outcomes)).index for _ in range(5)] == [0, 1, 2, 3, 4]
            await outcomes.aclose()

    if asynchronous:
        asyncio.run(take_asynchronously())
    else:
        take()
    assert read <= 5 + 3 + 1


def test_many_calls_from_an_asynchronous_iterator() -> None:
    async def calls() -> AsyncIterator[tuple[str, list[str]]]:
        for number in range(3):
            await asyncio.sleep(0)
            yield "q", ["a"] * (number + 1)

    outcomes = many(FakeTransport(), calls(), True)
    assert [len(outcome.response.results) for outcome in outcomes if outcome.response] == [1, 2, 3]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_concurrency_below_one_is_refused(asynchronous: bool) -> None:
    with pytest.raises(ConfigurationError, match="concurrency"):
        many(FakeTransport(), [("q", ["a"])], asynchronous, concurrency=0)


def test_many_calls_run_at_the_same_time() -> None:
    together = threading.Barrier(3, timeout=10)

    def meet(request: Request) -> None:
        if isinstance(request, InferRequest) and request.model_name == "scoring_head_text":
            together.wait()

    with LycheeClient(transport=FakeTransport(meet)) as client:
        assert client.manifest()
        started = time.monotonic()
        assert all(outcome.response for outcome in client.rerank_many([("q", ["a"])] * 3, concurrency=3))
    assert time.monotonic() - started < 10
