"""What a dual encoder's call sends, on the fake transport: with whom the query travels, and what waits for nothing."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import PIL.Image
import pytest
from fakes.dual_encoder import MANIFEST, FakeTransport
from lychee_client import (
    CacheUse,
    ContractError,
    Image,
    Images,
    ImageText,
    InferenceError,
    InvalidInputError,
    LycheeClient,
    LycheeError,
    RequestRejectedError,
    RerankResponse,
)
from lychee_client._embedding_cache import EmbeddingKeys
from lychee_client._pipelines.batches import MAX_UNANSWERED
from lychee_client._pipelines.dual_encoder import MAX_INLINE_CHARACTERS
from lychee_client._pipelines.encoder import MAX_COMPANIONS, find_shared_length
from lychee_client.preprocessing import image as image_module
from lychee_client.transports.base import InferRequest, InferResponse, Request
from lychee_client.types import Input

from .test_embedding_cache import Cache

ENCODERS = ("text_encoder", "vision_encoder")


@pytest.fixture
def cache(request: pytest.FixtureRequest) -> Cache | None:
    """Make what the test is parametrized with."""
    return None if request.param is None else request.param()


def plain(colour: tuple[int, int, int], size: tuple[int, int] = (30, 26)) -> Image:
    return Image.from_pil(PIL.Image.new("RGB", size, colour))


RED, GREEN, BLUE = plain((250, 0, 0)), plain((0, 250, 0)), plain((0, 0, 250))


def requests_to(transport: FakeTransport, *names: str) -> list[InferRequest]:
    requests = [request for request in transport.requests if isinstance(request, InferRequest)]
    return [request for request in requests if request.model_name in names]


def texts_sent(transport: FakeTransport) -> list[tuple[int, ...]]:
    return [request.inputs["input_ids"].shape for request in requests_to(transport, "text_encoder")]


def ask(transport: FakeTransport, query: Input, documents: Any, **options: Any) -> RerankResponse:
    with LycheeClient(transport=transport) as client:
        return client.rerank(query, documents, **options)


def text_of_length(tokens: int, prefix: str, letter: str = "a") -> str:
    """Return a text that the fake model reads as so many tokens."""
    return letter * (tokens - len(prefix) - 2)


def query_of(tokens: int) -> str:
    return text_of_length(tokens, "query: ", "q")


def documents_of(tokens: int, count: int = 1) -> list[str]:
    return [text_of_length(tokens - 1, "passage: ") + chr(ord("A") + number) for number in range(count)]


@pytest.mark.parametrize(
    ("query", "documents", "expected"),
    [
        (query_of(10), documents_of(12), [(2, 16)]),
        (query_of(10), documents_of(12, 3), [(4, 16)]),
        (query_of(10), documents_of(32), [(2, 32)]),
        (query_of(10), documents_of(64), [(1, 16), (1, 64)]),  # four times as long
        (query_of(20), documents_of(12), [(1, 32), (1, 16)]),  # shorter: padding would cost the document
        (query_of(10), documents_of(12, 4), [(1, 16), (4, 16)]),  # the batch is full
        (query_of(10), documents_of(12, 5), [(1, 16), (4, 16), (1, 16)]),
        (query_of(10), documents_of(12, 4) + documents_of(30, 2), [(4, 16), (3, 32)]),
        (query_of(10), [*documents_of(12), *documents_of(30)], [(2, 16), (1, 32)]),
        (query_of(40), documents_of(12) + documents_of(64), [(1, 16), (2, 64)]),
    ],
)
def test_query_travels_with_documents_where_that_is_cheaper(
    query: str, documents: list[str], expected: list[tuple[int, int]]
) -> None:
    transport = FakeTransport()
    response = ask(transport, query, documents)
    assert texts_sent(transport) == expected
    for result in response.results:
        assert (
            result.relevance_score == ask(FakeTransport(), query, [documents[result.index]]).results[0].relevance_score
        )


def test_query_does_not_travel_with_many_documents() -> None:
    assert find_shared_length(16, [16] * MAX_COMPANIONS, 32) == 16
    assert find_shared_length(16, [16] * (MAX_COMPANIONS + 1), 32) is None
    assert find_shared_length(16, [16] * (MAX_COMPANIONS + 1) + [24], 32) == 24
    assert find_shared_length(16, [], 32) is None


@pytest.mark.parametrize("length", [10, 20])
def test_no_batch_is_over_the_limit(length: int) -> None:
    for count in range(1, 11):
        transport = FakeTransport()
        response = ask(transport, query_of(10), documents_of(12, count) + documents_of(30, count // 2))
        assert len(response.results) == count + count // 2
        for request in requests_to(transport, *MANIFEST["max_batch_size"]):
            assert request.rows <= MANIFEST["max_batch_size"][request.model_name]


def test_query_of_a_bulk_call_travels_alone() -> None:
    transport = FakeTransport()
    ask(transport, query_of(10), documents_of(12, 2), priority="bulk")
    assert texts_sent(transport)[0] == (1, 16)
    (first,) = requests_to(transport, "text_encoder")[0].inputs["attention_mask"]
    assert first.sum() == 10


def test_documents_of_one_modality_are_scored_together() -> None:
    transport, red, blue = FakeTransport(), plain((250, 0, 0)), plain((0, 0, 250))
    documents = [
        *documents_of(12, 2),
        red,
        ImageText(red, "red"),
        *documents_of(30, 2),
        blue,
        ImageText(blue, "a" * 50),
    ]
    assert len(ask(transport, "q", documents).results) == 8
    sent = [request for request in transport.requests if isinstance(request, InferRequest)]
    heads = [(request.model_name, request.rows) for request in sent if "head" in request.model_name]
    assert heads == [("scoring_head_text", 4), ("scoring_head_image", 2), ("scoring_head_image_text", 2)]


class Meeting(FakeTransport):
    """Answers no encoder before all the requests of the test have come."""

    def __init__(self, *rows: tuple[str, int]) -> None:
        super().__init__()
        self._expected = sorted(rows)
        self._held: list[tuple[Future[Any], InferRequest]] = []

    def send(self, request: Request, timeout_s: float | None) -> Future[Any]:
        """See Transport."""
        if not isinstance(request, InferRequest) or request.model_name not in ENCODERS:
            return super().send(request, timeout_s)
        future: Future[Any] = Future()
        self._held.append((future, request))
        if sorted((held.model_name, held.rows) for _, held in self._held) == self._expected:
            for waiting, held in self._held:
                waiting.set_result(super().send(held, None).result())
        return future


class CountingExecutor(Executor):
    """Works at once, and counts."""

    def __init__(self) -> None:
        self.jobs = 0

    def submit(self, job: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        """See Executor."""
        self.jobs += 1
        future: Future[Any] = Future()
        future.set_result(job(*arguments, **options))
        return future


@pytest.mark.parametrize(
    ("query", "documents", "requests"),
    [
        ("q", ["image"], [("text_encoder", 1), ("vision_encoder", 1)]),
        ("q", ["image with text"], [("text_encoder", 2), ("vision_encoder", 1)]),
        ("q", ["a" * 50, "image"], [("text_encoder", 1), ("text_encoder", 1), ("vision_encoder", 1)]),
        ("image", ["a"], [("text_encoder", 1), ("vision_encoder", 1)]),
        ("image", ["image", "image"], [("vision_encoder", 1)] * 3),
        ("image with text", ["image", "a"], [("text_encoder", 2), ("vision_encoder", 1), ("vision_encoder", 1)]),
    ],
)
@pytest.mark.parametrize("cache", [None, Cache], indirect=True)
def test_query_and_documents_are_in_flight_at_the_same_time(
    query: str, documents: list[str], requests: list[tuple[str, int]], cache: Cache | None
) -> None:
    if cache is not None and ("text_encoder", 2) in requests:  # the query goes ahead while images are read
        requests = [*requests, ("text_encoder", 1), ("text_encoder", 1)]
        requests.remove(("text_encoder", 2))
    red = iter(range(10, 200, 10))

    def make(name: str) -> Input:
        if not name.startswith("image"):
            return name
        image = plain((next(red), 0, 0))
        return image if name == "image" else ImageText(image, "text")

    with LycheeClient(
        transport=Meeting(*requests), embedding_cache=cache, executor=CountingExecutor(), timeout_s=5
    ) as client:
        response = client.rerank(make(query), [make(document) for document in documents])
    assert len(response.results) == len(documents)


class Queue(FakeTransport):
    """Answers a text encoder's request some time after it came, and notes how many wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[int] = []
        self._unanswered = 0
        self._pool = ThreadPoolExecutor(1)

    def send(self, request: Request, timeout_s: float | None) -> Future[Any]:
        """See Transport."""
        if not isinstance(request, InferRequest) or request.model_name != "text_encoder":
            return super().send(request, timeout_s)
        self._unanswered += 1
        self.waiting.append(self._unanswered)
        return self._pool.submit(self._answer_late, request)

    def _answer_late(self, request: InferRequest) -> Any:
        time.sleep(0.02)
        self._unanswered -= 1
        return super().send(request, None).result()

    def close(self) -> None:
        """See Transport."""
        self._pool.shutdown()
        super().close()


def test_at_most_two_batches_of_texts_wait() -> None:
    transport = Queue()
    documents = documents_of(12, 9) + documents_of(30)  # batches of 4, 4, 1 and 1, after the query
    assert len(ask(transport, query_of(60), documents).results) == len(documents)
    assert (len(transport.waiting), max(transport.waiting)) == (5, MAX_UNANSWERED)


@pytest.mark.parametrize("cache", [None, Cache], indirect=True)
def test_documents_do_not_wait_for_the_querys_image(monkeypatch: pytest.MonkeyPatch, cache: Cache | None) -> None:
    documents = [plain((value, 0, 0)) for value in (10, 20, 30)]
    sent = threading.Semaphore(0)
    prepare = image_module._prepare

    def prepare_slowly(content: Any, *rest: Any) -> Any:
        if content.size == (99, 99):
            for _ in documents:
                assert sent.acquire(timeout=5)
        return prepare(content, *rest)

    def note(request: Request) -> None:
        if isinstance(request, InferRequest) and request.model_name == "vision_encoder":
            sent.release()

    monkeypatch.setattr(image_module, "_prepare", prepare_slowly)
    with (
        ThreadPoolExecutor(2) as pool,
        LycheeClient(transport=FakeTransport(note), executor=pool, embedding_cache=cache) as client,
    ):
        assert len(client.rerank(plain((1, 2, 3), (99, 99)), documents).results) == 3


def failing(model_name: str, is_bad: Callable[[np.ndarray], bool], error: Exception) -> Callable[[Request], None]:
    """Return an intercept that fails every request which has a row that is bad."""

    def fail(request: Request) -> None:
        if isinstance(request, InferRequest) and request.model_name == model_name:
            (name, *_) = request.inputs
            if any(is_bad(row) for row in request.inputs[name]):
                raise error

    return fail


def has_tokens(tokens: int) -> Callable[[np.ndarray], bool]:
    return lambda input_ids: int((input_ids != MANIFEST["text"]["pad_token_id"]).sum()) == tokens


def test_bad_document_costs_neither_the_query_nor_its_companions() -> None:
    kind = RequestRejectedError
    transport = FakeTransport(failing("text_encoder", has_tokens(13), kind("bad row")))
    response = ask(transport, query_of(10), [*documents_of(12, 2), *documents_of(13)])
    assert texts_sent(transport) == [(4, 16), (1, 16), (1, 16), (1, 16), (1, 16)]
    assert sorted(result.index for result in response.results) == [0, 1]
    assert [(failed.index, type(failed.error)) for failed in response.errors] == [(2, kind)]
    expected = ask(FakeTransport(), query_of(10), documents_of(12, 2))
    assert response.results == expected.results


@pytest.mark.parametrize("kind", [InferenceError, RequestRejectedError])
def test_bad_query_fails_the_call_whoever_it_travels_with(kind: type[LycheeError]) -> None:
    transport = FakeTransport(failing("text_encoder", has_tokens(10), kind("bad row")))
    with pytest.raises(kind, match="bad row"):
        ask(transport, query_of(10), documents_of(12, 2))


@pytest.mark.parametrize("cache", [None, Cache], indirect=True)
@pytest.mark.parametrize("make", [lambda image: image, lambda image: ImageText(image, "text")])
def test_bad_image_of_the_query_fails_the_call_and_no_document(
    make: Callable[[Image], Input], cache: Cache | None
) -> None:
    for documents in (["a"], [RED, GREEN], ["a", ImageText(RED, "red")]):
        with (
            LycheeClient(transport=FakeTransport(), embedding_cache=cache) as client,
            pytest.raises(InvalidInputError, match=r"^query: .*not a readable image") as caught,
        ):
            client.rerank(make(Image.from_bytes(b"damaged")), documents)
        assert caught.value.index is None


def test_image_of_the_query_that_the_server_refuses_fails_the_call() -> None:
    transport = FakeTransport(failing("vision_encoder", lambda pixels: pixels.max() == 0, InferenceError("dark")))
    with pytest.raises(InferenceError, match="dark"):
        ask(transport, plain((0, 0, 0)), [RED])


def test_without_a_cache_nothing_is_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_module, "_hash_content", lambda *_: pytest.fail("hashed"))
    monkeypatch.setattr(EmbeddingKeys, "make", lambda *_: pytest.fail("hashed"))
    with LycheeClient(transport=FakeTransport(), embedding_cache=None) as client:
        response = client.rerank(ImageText(RED, "red"), ["a", GREEN, ImageText(BLUE, "blue")])
    assert (len(response.results), response.embedding_cache) == (3, None)


def test_what_comes_twice_in_a_call_is_encoded_once() -> None:
    transport, same = FakeTransport(), plain((7, 7, 7))
    with LycheeClient(transport=transport, embedding_cache=None) as client:
        response = client.rerank(same, ["a", same, ImageText(same, "a"), "a", ImageText(same, "b"), RED])
    assert len(response.results) == 6
    assert len(requests_to(transport, "vision_encoder")) == 2
    assert texts_sent(transport) == [(2, 16)]


@pytest.mark.parametrize("cache", [None, Cache], indirect=True)
def test_document_that_reads_like_the_query_is_encoded_with_it(cache: Cache | None) -> None:
    transport = FakeTransport(manifest={"text": {**MANIFEST["text"], "query_prefix": "passage: "}})
    with LycheeClient(transport=transport, embedding_cache=cache) as client:
        first = client.rerank("same", ["same", "other"])
        again = client.rerank("same", ["same", RED])
    assert first.results[0].index == 0
    assert first.results[0].relevance_score == again.results[0].relevance_score
    # The second call's is known to the cache, but the query does not wait for images to be read.
    assert texts_sent(transport) == [(2, 16), (1, 16)]
    if cache is not None:
        assert (first.embedding_cache, again.embedding_cache) == (CacheUse(0, 2), CacheUse(1, 1))


def test_model_without_scoring_heads_is_refused() -> None:
    limits = {name: rows for name, rows in MANIFEST["max_batch_size"].items() if "head" not in name}
    with pytest.raises(ContractError, match=r"max_batch_size\.scoring_head_text"):
        ask(FakeTransport(manifest={"max_batch_size": limits}), "q", ["a"])


def test_only_long_texts_are_tokenized_in_a_thread() -> None:
    executor = CountingExecutor()
    with LycheeClient(transport=FakeTransport(), executor=executor, embedding_cache=None) as client:
        assert client.manifest()
        before = executor.jobs
        client.rerank("q", ["a" * (MAX_INLINE_CHARACTERS - 1)])
        assert executor.jobs == before
        client.rerank("q", ["a" * (MAX_INLINE_CHARACTERS // 2)] * 2)
        assert executor.jobs == before + 1


def test_answer_to_a_request_of_many_rows_reaches_each_of_them() -> None:
    def reverse(request: Request) -> InferResponse | None:
        if not isinstance(request, InferRequest) or request.model_name != "scoring_head_text":
            return None
        logits = np.arange(request.rows, dtype=np.float32)[:, None]  # (batch_size, 1)
        return InferResponse({"relevance_score": 1 / (1 + np.exp(-logits)), "logits": logits})

    buffer = io.BytesIO()
    PIL.Image.new("RGB", (3, 3)).save(buffer, "PNG")
    documents = ["a", Image.from_bytes(buffer.getvalue()), "b", "", "c"]
    results = ask(FakeTransport(reverse), "q", documents).results
    assert [result.index for result in results if result.modality == "text"] == [4, 2, 0]


def test_several_images_are_refused_as_one_document_and_as_a_query() -> None:
    pictures = [Image.from_numpy(np.full((30, 40), value, np.uint8)) for value in (10, 200)]
    with LycheeClient(transport=FakeTransport()) as client:
        response = client.rerank(
            "q", [Images(pictures), pictures[0], ImageText(Images(pictures), "t"), Images(pictures[:1])]
        )
        assert sorted(result.index for result in response.results) == [1, 3]
        for index, failed in zip((0, 2), response.errors, strict=True):
            assert isinstance(failed.error, InvalidInputError)
            assert (failed.index, failed.error.index) == (index, index)
            assert "the document has 2 images, fake reads one; send each as a document of its own" in failed.message
        with pytest.raises(InvalidInputError, match="the query has 2 images"):
            client.rerank(Images(pictures), ["a"])
