"""The embedding cache of a client, on the fake transport: the same answers, and only what is missing is computed."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import io
import logging
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from fakes import cross_encoder
from fakes.cross_encoder import PATCHES_MANIFEST
from fakes.dual_encoder import FakeTransport, make_tokenizer_json
from lychee_client import (
    AsyncLycheeClient,
    CacheUse,
    ContractError,
    Image,
    ImageText,
    InferenceError,
    InvalidOutputError,
    LycheeClient,
    RequestRejectedError,
    RerankResponse,
    ServerOverloadedError,
    Text,
    Timings,
)
from lychee_client._embedding_cache import CachedEmbedding, EmbeddingKeys, read_entry, write_entry
from lychee_client._pipelines.lanes import LANES
from lychee_client._pipelines.pace import Pace
from lychee_client._pipelines.scoring import IMAGES_AHEAD
from lychee_client.manifest import Manifest
from lychee_client.preprocessing import image as image_module
from lychee_client.preprocessing.image import ImageSizes
from lychee_client.transports.base import InferRequest, InferResponse, Request
from lychee_client.types import Input, Priority

ENCODERS = ("text_encoder", "vision_encoder")
PATCHES_TOKENIZER = hashlib.sha256(cross_encoder.make_tokenizer_json().encode()).hexdigest()


class Cache(dict[bytes, bytes]):
    """Keeps everything, and counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.calls.append("get")
        return [self.get(key) for key in keys]

    def put_many(self, entries: Mapping[bytes, bytes]) -> None:
        self.calls.append("put")
        self.update(entries)


def plain(colour: tuple[int, int, int], size: tuple[int, int] = (300, 260)) -> Image:
    return Image.from_pil(PIL.Image.new("RGB", size, colour))


def png(colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (40, 30), colour).save(buffer, "PNG")
    return buffer.getvalue()


def make_documents() -> list[Input]:
    red, blue = Image.from_bytes(png((220, 10, 10))), plain((10, 10, 220), (600, 300))
    texts = ["aaa", "b" * 30, Text("c" * 50), "d" * 500]
    return [*texts, red, ImageText(red, "aaa"), blue, ImageText(blue, "e"), "", Image.from_bytes(b"damaged")]


def artifacts(*names: str) -> dict[str, str]:
    """Return hashes as a manifest has them, of the fake server's tokenizer and of other files."""
    tokenizer = hashlib.sha256(make_tokenizer_json().encode()).hexdigest()
    return {"tokenizer": tokenizer, **dict.fromkeys(names, "1" * 64)}


def requests_to(transport: FakeTransport, *names: str) -> list[InferRequest]:
    requests = [request for request in transport.requests if isinstance(request, InferRequest)]
    return [request for request in requests if request.model_name in names]


def ask(cache: Cache | None, transport: FakeTransport, query: Input, documents: Any, **options: Any) -> RerankResponse:
    with LycheeClient(transport=transport, embedding_cache=cache) as client:
        return client.rerank(query, documents, **options)


def comparable(response: RerankResponse) -> dict[str, Any]:
    errors = [(failed.index, failed.message, type(failed.error)) for failed in response.errors]
    return {"response": replace(response, timings=Timings(), errors=(), embedding_cache=None), "errors": errors}


@pytest.mark.parametrize("priority", ["interactive", "bulk"])
@pytest.mark.parametrize("query", ["aaa", plain((9, 9, 200)), ImageText(plain((9, 200, 9)), "green")])
def test_answers_are_those_without_a_cache(query: Input, priority: str) -> None:
    cache = Cache()
    expected = ask(None, FakeTransport(), query, make_documents(), return_documents=False, priority=priority)
    first = ask(cache, FakeTransport(), query, make_documents(), priority=priority)
    again = ask(cache, FakeTransport(), query, make_documents(), priority=priority)
    assert comparable(first) == comparable(again) == comparable(expected)
    assert expected.embedding_cache is None
    assert first.embedding_cache == CacheUse(hits=0, misses=8)  # "aaa" and both images come twice
    assert again.embedding_cache == CacheUse(hits=7, misses=1)  # what is damaged is never there


def test_asynchronous_client_has_the_cache_too() -> None:
    async def run(cache: Cache | None) -> RerankResponse:
        async with AsyncLycheeClient(transport=FakeTransport(), embedding_cache=cache) as client:
            return await client.rerank("aaa", make_documents())

    cache = Cache()
    responses = [asyncio.run(run(used)) for used in (None, cache, cache)]
    assert comparable(responses[0]) == comparable(responses[1]) == comparable(responses[2])
    assert responses[2].embedding_cache == CacheUse(hits=7, misses=1)


def test_only_what_is_missing_is_computed() -> None:
    cache, transport = Cache(), FakeTransport()
    ask(cache, FakeTransport(), "aaa", make_documents())
    response = ask(cache, transport, "other", [*make_documents()[:-1], "new", plain((1, 2, 3))])
    assert response.embedding_cache == CacheUse(hits=7, misses=2)
    assert [request.rows for request in requests_to(transport, "text_encoder")] == [1, 1]  # the query, and "new"
    assert [request.rows for request in requests_to(transport, "vision_encoder")] == [1]
    assert requests_to(transport, "rerank_text", "rerank_image", "rerank_image_text") == []


def test_hits_decode_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(png((1, 2, 3)))
    cache = Cache()
    first = ask(cache, FakeTransport(), "q", [Image.from_path(path)])
    monkeypatch.setattr(image_module, "_prepare", lambda *_: pytest.fail("decoded"))
    for image in (Image.from_path(path), Image.from_bytes(path.read_bytes())):
        assert ask(cache, FakeTransport(), "q", [image]).results == first.results


def test_cache_is_asked_once_per_call() -> None:
    cache = Cache()
    for expected in (["get", "put"], ["get"]):
        cache.calls.clear()
        ask(cache, FakeTransport(), "q", make_documents()[:-1])
        assert cache.calls == expected


def test_repeated_documents_are_computed_once() -> None:
    transport, image = FakeTransport(), png((5, 5, 5))
    documents = ["same"] * 5 + [Image.from_bytes(image) for _ in range(3)]
    response = ask(Cache(), transport, "q", documents)
    assert response.embedding_cache == CacheUse(hits=0, misses=2)
    assert len(requests_to(transport, "vision_encoder")) == 1
    assert [request.rows for request in requests_to(transport, "text_encoder")] == [1, 1]
    assert len({result.relevance_score for result in response.results}) == 2


def test_lanes_limit_what_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pace, "find_rows", lambda self, length: max(1, 64 // length))
    documents = [letter * 40 for letter in "abcdefgh"] + list("abcdefgh")
    shapes: dict[str, list[tuple[int, ...]]] = {}
    for priority in ("interactive", "bulk"):
        transport = FakeTransport()
        ask(Cache(), transport, "q", documents, priority=priority)
        sent = requests_to(transport, "text_encoder")[1:]
        shapes[priority] = [request.inputs["input_ids"].shape for request in sent]
        assert [request.rows for request in requests_to(transport, "scoring_head_text")] == [4, 4, 4, 4]
    assert shapes["interactive"] == [(4, 16), (4, 16), (4, 64), (4, 64)]
    assert shapes["bulk"] == [(4, 16), (4, 16), *[(1, 64)] * 8]


class FailingRows:
    """Fails every request to a model that has a row which the test marks."""

    def __init__(self, model_name: str, is_bad: Callable[[InferRequest, int], bool], error: Exception) -> None:
        self._model_name = model_name
        self._is_bad = is_bad
        self._error = error

    def __call__(self, request: Request) -> None:
        if not isinstance(request, InferRequest) or request.model_name != self._model_name:
            return
        if any(self._is_bad(request, row) for row in range(request.rows)):
            raise self._error


def is_long(request: InferRequest, row: int) -> bool:
    return int(request.inputs["attention_mask"][row].sum()) == len("passage: bbbb") + 2


def test_row_that_is_refused_by_the_encoder_costs_nothing_else() -> None:
    kind = RequestRejectedError
    cache = Cache()
    transport = FakeTransport(FailingRows("text_encoder", is_long, kind("bad row")))
    response = ask(cache, transport, "q", ["a", "bbbb", "cc", "bbbb", ImageText(plain((1, 1, 1)), "bbbb"), "d"])
    assert sorted(result.index for result in response.results) == [0, 2, 5]
    assert [(failed.index, type(failed.error)) for failed in response.errors] == [(1, kind), (3, kind), (4, kind)]
    assert len(cache) == 4  # three texts and the image


def test_image_that_fails_costs_its_documents_only() -> None:
    def is_dark(request: InferRequest, row: int) -> bool:
        return bool(request.inputs["pixel_values"][row].max() == 0)

    transport = FakeTransport(FailingRows("vision_encoder", is_dark, RequestRejectedError("bad image")))
    documents = [plain((0, 0, 0)), plain((9, 9, 9)), "text", ImageText(plain((0, 0, 0)), "text")]
    response = ask(Cache(), transport, "q", documents)
    assert sorted(result.index for result in response.results) == [1, 2]
    assert [failed.index for failed in response.errors] == [0, 3]


def test_row_that_fails_in_the_head_costs_nothing_else() -> None:
    reference = ask(Cache(), FakeTransport(), "q", ["a", "b", "c"])
    cache = Cache()
    ask(cache, FakeTransport(), "q", ["b"])
    (entry,) = cache.values()
    bad = np.frombuffer(entry[20:-4], np.float32)

    def is_bad(request: InferRequest, row: int) -> bool:
        return np.array_equal(request.inputs["text_embedding"][row], bad)

    transport = FakeTransport(FailingRows("scoring_head_text", is_bad, RequestRejectedError("bad row")))
    response = ask(Cache(), transport, "q", ["a", "b", "c"])
    assert [failed.index for failed in response.errors] == [1]
    assert response.results == tuple(result for result in reference.results if result.index != 1)


def test_errors_of_equal_documents_have_their_own_index() -> None:
    response = ask(Cache(), FakeTransport(), "q", [Image.from_bytes(b"x"), "a", Image.from_bytes(b"x")])
    assert [(failed.index, failed.error.index) for failed in response.errors] == [(0, 0), (2, 2)]  # type: ignore[attr-defined]


def test_error_of_the_whole_call_is_raised() -> None:
    def fail(request: Request) -> None:
        if isinstance(request, InferRequest) and request.model_name == "vision_encoder":
            raise ServerOverloadedError("full")

    with pytest.raises(ServerOverloadedError):
        ask(Cache(), FakeTransport(fail), "q", [plain((1, 1, 1))])


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (np.full((1, 24), np.nan, np.float32), InvalidOutputError),
        (np.zeros((1, 23), np.float32), ContractError),
        (np.zeros((1, 24), np.float64), ContractError),
    ],
)
def test_embedding_that_breaks_the_contract_is_neither_used_nor_kept(answer: np.ndarray, kind: type[Exception]) -> None:
    def spoil(request: Request) -> InferResponse | None:
        is_image = isinstance(request, InferRequest) and request.model_name == "vision_encoder"
        return InferResponse({"image_embedding": answer}) if is_image else None

    cache = Cache()
    with pytest.raises(kind):
        ask(cache, FakeTransport(spoil), "q", [plain((1, 1, 1))])
    assert cache == {}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda entry: entry[:-1],
        lambda entry: b"",
        lambda entry: bytes(len(entry)),
        lambda entry: entry[:30] + bytes([entry[30] ^ 1]) + entry[31:],
        lambda entry: b"a foreign value",
        lambda entry: entry.decode("latin-1"),
    ],
    ids=["cut off", "empty", "zeros", "flipped bit", "foreign", "text"],
)
def test_damaged_entry_is_a_miss(spoil: Callable[[bytes], Any]) -> None:
    cache = Cache()
    first = ask(cache, FakeTransport(), "q", ["a", plain((1, 2, 3))])
    good = dict(cache)
    for key in cache:
        cache[key] = spoil(cache[key])
    again = ask(cache, FakeTransport(), "q", ["a", plain((1, 2, 3))])
    assert again.results == first.results
    assert again.embedding_cache == CacheUse(hits=0, misses=2)
    assert cache == good


def test_entry_is_read_under_its_own_key_only() -> None:
    for image in (None, ImageSizes((640, 480), (341, 256))):
        embedding = CachedEmbedding(np.arange(4, dtype=np.float32), image)
        entry = write_entry(b"k" * 32, embedding)
        read = read_entry(b"k" * 32, entry, 4)
        assert read is not None
        assert read.image == image
        np.testing.assert_array_equal(read.vector, embedding.vector)
        assert read_entry(b"l" * 32, entry, 4) is None
        assert read_entry(b"k" * 32, entry, 5) is None


def test_entry_of_another_format_is_a_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("lychee_client._embedding_cache._MAGIC", b"lye9")
        entry = write_entry(b"k" * 32, CachedEmbedding(np.ones(4, np.float32)))
    assert read_entry(b"k" * 32, entry, 4) is None


def test_entry_with_values_that_are_not_finite_is_a_miss() -> None:
    entry = write_entry(b"k" * 32, CachedEmbedding(np.array([1, np.inf], np.float32)))
    assert read_entry(b"k" * 32, entry, 2) is None


class BrokenCache:
    """Breaks its promises."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        raise OSError("redis://user:secret@host")

    def put_many(self, entries: Mapping[bytes, bytes]) -> None:
        raise OSError("redis://user:secret@host")


class ShortCache(Cache):
    """Answers less than it is asked."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return []


@pytest.mark.parametrize("cache", [BrokenCache(), ShortCache()])
def test_cache_that_breaks_costs_no_call(cache: Any, caplog: pytest.LogCaptureFixture) -> None:
    expected = ask(None, FakeTransport(), "q", make_documents())
    with caplog.at_level(logging.WARNING, "lychee_client"):
        assert comparable(ask(cache, FakeTransport(), "q", make_documents())) == comparable(expected)
    assert "embedding cache failed" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    "changes",
    [
        {"model_id": "other"},
        {"precision": "fp16"},
        {"artifacts": artifacts(*(f"{encoder}/model.onnx" for encoder in ENCODERS))},
        {"image": {"kind": "stretch", "height": 224, "width": 224, "resample": "bicubic"}},
    ],
    ids=["model", "precision", "weights", "preprocessing"],
)
def test_other_models_embeddings_are_not_found(changes: dict[str, Any]) -> None:
    cache, image = Cache(), plain((1, 2, 3))
    ask(cache, FakeTransport(), "q", [image])
    response = ask(cache, FakeTransport(manifest=changes), "q", [image])
    assert response.embedding_cache == CacheUse(hits=0, misses=1)


def test_text_is_found_by_what_the_model_reads() -> None:
    cache = Cache()
    ask(cache, FakeTransport(), "q", ["x" * 200])
    response = ask(cache, FakeTransport(), "q", ["x" * 300, "x" * 20])  # the model reads 64 tokens
    assert response.embedding_cache == CacheUse(hits=1, misses=1)
    assert {result.index: result.truncated for result in response.results} == {0: True, 1: False}


def test_instruction_changes_the_query_and_no_document() -> None:
    spec = {"default": "Find it.", "query_prefix": "Instruct: {instruction}\nQuery: "}
    cache, documents = Cache(), make_documents()[:-1]
    for instruction, hits in ((None, 0), ("Find pets.", 7)):
        expected = ask(None, FakeTransport(manifest={"instruction": spec}), "q", documents, instruction=instruction)
        response = ask(cache, FakeTransport(manifest={"instruction": spec}), "q", documents, instruction=instruction)
        assert comparable(response) == comparable(expected)
        assert response.embedding_cache == CacheUse(hits, 7 - hits)


def test_text_and_image_never_share_a_key() -> None:
    manifest: Manifest
    with LycheeClient(transport=FakeTransport()) as client:
        manifest = client.manifest()
    keys = [EmbeddingKeys(manifest, "same", encoder).make(b"content") for encoder in ENCODERS]
    assert len(set(keys)) == 2


def test_file_that_changes_between_key_and_pixels_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(png((250, 1, 1)))

    class ChangingCache(Cache):
        def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
            path.write_bytes(png((1, 1, 250)))
            return super().get_many(keys)

    cache = ChangingCache()
    ask(cache, FakeTransport(), "q", [Image.from_path(path)])
    assert cache == {}


def test_pixels_of_an_earlier_content_are_not_kept_under_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(png((250, 1, 1)))
    image, cache = Image.from_path(path), Cache()
    ask(None, FakeTransport(), "q", [image])
    path.write_bytes(png((1, 1, 250)))
    ask(cache, FakeTransport(), "q", [image])
    blue = ask(None, FakeTransport(), "q", [Image.from_path(path)])
    found = ask(cache, FakeTransport(), "q", [Image.from_path(path)])
    assert found.embedding_cache == CacheUse(hits=1, misses=0)
    assert found.results == blue.results


def test_equal_pixels_are_found_whatever_holds_them() -> None:
    cache, pixels = Cache(), np.full((30, 40, 3), 77, np.uint8)
    ask(cache, FakeTransport(), "q", [Image.from_numpy(pixels)])
    picture = PIL.Image.fromarray(pixels)
    assert ask(cache, FakeTransport(), "q", [Image.from_pil(picture)]).embedding_cache == CacheUse(1, 0)
    turned = Image.from_numpy(pixels.reshape(40, 30, 3))  # the same bytes in another shape
    assert ask(cache, FakeTransport(), "q", [turned]).embedding_cache == CacheUse(0, 1)


class ForgetfulTransport(FakeTransport):
    """Does not keep what was sent."""

    def send(self, request: Request, timeout_s: float | None) -> Any:
        """See Transport."""
        future = super().send(request, timeout_s)
        self.requests.clear()
        return future


@pytest.mark.parametrize("priority", ["interactive", "bulk"])
def test_pixels_do_not_pile_up(monkeypatch: pytest.MonkeyPatch, priority: Priority) -> None:
    alive: set[int] = set()
    most = []
    prepare = image_module._prepare
    contents = [png((number, 0, 7)) for number in range(200)]

    def count(content: Any, *arguments: Any) -> Any:
        prepared = prepare(content, *arguments)
        if content not in contents:  # a thread of an earlier test's client may still be decoding
            return prepared
        pixels = prepared.pixel_values.copy()
        number = len(most)
        alive.add(number)
        most.append(len(alive))
        weakref.finalize(pixels, alive.discard, number)
        return replace(prepared, pixel_values=pixels)

    monkeypatch.setattr(image_module, "_prepare", count)
    monkeypatch.setattr("lychee_client._workers.MAX_WORKERS", 1)
    images = [Image.from_bytes(content) for content in contents]
    response = ask(Cache(), ForgetfulTransport(), "q", images, priority=priority)
    assert (len(response.results), len(most)) == (200, 200)
    assert max(most) <= LANES[priority].max_rows_in_flight + IMAGES_AHEAD + 2


def test_nothing_failed_is_kept() -> None:
    failing = [True]

    def fail(request: Request) -> None:
        if failing[0] and isinstance(request, InferRequest) and request.model_name == "text_encoder":
            raise InferenceError("short of memory")

    expected = ask(None, FakeTransport(), "q", ["a", "b"])
    with LycheeClient(transport=FakeTransport(fail)) as client:  # with the cache that it has by default
        with pytest.raises(InferenceError, match="short of memory"):
            client.rerank("q", ["a", "b"])
        failing[0] = False
        computed, again = client.rerank("q", ["a", "b"]), client.rerank("q", ["a", "b"])
    assert computed.results == again.results == expected.results
    assert (computed.embedding_cache, again.embedding_cache) == (CacheUse(0, 2), CacheUse(2, 0))


def test_golden_pairs_never_use_the_cache() -> None:
    pair = {"query": {"text": "q"}, "document": {"text": "d"}, "relevance_score": 0.5}
    transport = FakeTransport(manifest={"golden_pairs": {"tolerance": 1.0, "pairs": [pair] * 2}})
    cache = Cache()
    with LycheeClient(transport=transport, embedding_cache=cache) as client:
        assert client.check_golden_pairs().passed
    assert cache.calls == []
    assert len(requests_to(transport, "scoring_head_text")) == 2


@pytest.mark.parametrize(
    "manifest",
    [{**PATCHES_MANIFEST, "artifacts": {"tokenizer": PATCHES_TOKENIZER}}, {"artifacts": artifacts()}],
    ids=["cross-encoder", "dual encoder"],
)
def test_model_that_cannot_use_a_cache_does_without(manifest: dict[str, Any]) -> None:
    cache = Cache()
    transport = FakeTransport(manifest=manifest)
    response = ask(cache, transport, "q", ["a"])
    assert (len(response.results), response.embedding_cache, cache.calls) == (1, None, [])


def test_call_with_nothing_to_rank_asks_nothing() -> None:
    cache, transport = Cache(), FakeTransport()
    assert ask(cache, transport, "q", ["", " "]).embedding_cache == CacheUse(0, 0)
    assert (cache.calls, requests_to(transport, *ENCODERS)) == ([], [])


def test_a_finished_call_keeps_no_file_until_the_next_collection() -> None:
    data = png((200, 30, 30))
    gc.disable()
    try:
        with LycheeClient(transport=FakeTransport(), embedding_cache=Cache()) as client:
            before = sys.getrefcount(data)
            assert client.rerank("red", [Image.from_bytes(data)]).errors == ()
            assert sys.getrefcount(data) == before
    finally:
        gc.enable()
