"""The scores of a cross-encoder's pairs in a cache: only what is new is computed, and nothing that failed is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from fakes.cross_encoder import PATCHES_MANIFEST, make_tokenizer_json
from fakes.dual_encoder import FakeTransport
from lychee_client import (
    CacheUse,
    Image,
    Images,
    ImageText,
    InferenceError,
    LycheeClient,
    MemoryEmbeddingCache,
    RequestRejectedError,
    RerankResponse,
    Timings,
)
from lychee_client._pipelines.pair_scores import read_score, write_score
from lychee_client._pipelines.scoring import Score
from lychee_client.preprocessing.text import TokenizedText
from lychee_client.transports.base import InferRequest, Request

KEY = bytes(32)
OTHER_FILES = {
    "text_encoder/model.onnx": "1" * 64,
    "tokenizer": hashlib.sha256(make_tokenizer_json().encode()).hexdigest(),
}


def picture(seed: int) -> Image:
    return Image.from_numpy(np.random.default_rng(seed).integers(0, 256, (112, 56, 3), dtype=np.uint8))


DOCUMENTS = ["a", picture(1), ImageText(picture(2), "b" * 30), "", "c" * 300, Image.from_bytes(b"damaged")]


def ask(
    cache: MemoryEmbeddingCache | None,
    query: Any = "q",
    documents: Sequence[Any] = DOCUMENTS,
    transport: FakeTransport | None = None,
    **options: Any,
) -> RerankResponse:
    transport = transport or FakeTransport(manifest=PATCHES_MANIFEST)
    with LycheeClient(transport=transport, embedding_cache=cache) as client:
        return client.rerank(query, documents, **options)


def comparable(response: RerankResponse) -> object:
    return replace(response, timings=Timings(), errors=(), embedding_cache=None), [e.message for e in response.errors]


def rows(transport: FakeTransport) -> int:
    sent = [request for request in transport.requests if isinstance(request, InferRequest)]
    return sum(request.rows for request in sent if request.model_name.startswith("rerank_"))


def test_known_pairs_are_answered_as_if_they_were_computed() -> None:
    cache, transport = MemoryEmbeddingCache(2**20), FakeTransport(manifest=PATCHES_MANIFEST)
    expected = ask(None)
    first, again = ask(cache), ask(cache, transport=transport)
    assert expected.embedding_cache is None
    assert comparable(first) == comparable(again) == comparable(expected)
    assert (first.embedding_cache, again.embedding_cache) == (CacheUse(0, 5), CacheUse(4, 1))  # the damaged one
    assert rows(transport) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"query": "other"},
        {"query": ImageText(picture(3), "q")},
        {"instruction": "Find something else."},
        {"documents": ["b"]},
        {"documents": [ImageText(picture(1), "a")]},
        {"documents": [Images([picture(1), picture(2)])]},
        {"transport": FakeTransport(manifest={**PATCHES_MANIFEST, "model_id": "other"})},
        {"transport": FakeTransport(manifest={**PATCHES_MANIFEST, "artifacts": OTHER_FILES})},
        {"transport": FakeTransport(manifest={**PATCHES_MANIFEST, "instruction": {"default": "Judge."}})},
    ],
    ids=[
        "query",
        "image of the query",
        "instruction",
        "text",
        "image",
        "images",
        "model",
        "files",
        "default instruction",
    ],
)
def test_another_pair_or_model_is_computed(change: Mapping[str, Any]) -> None:
    cache = MemoryEmbeddingCache(2**20)
    known: dict[str, Any] = {"query": "q", "documents": ["a"]}
    assert ask(cache, **known).embedding_cache == CacheUse(0, 1)
    assert ask(cache, **known).embedding_cache == CacheUse(1, 0)
    assert ask(cache, **{**known, **change}).embedding_cache == CacheUse(0, 1)


def test_pairs_are_told_apart_by_every_image_and_their_order() -> None:
    cache, pictures = MemoryEmbeddingCache(2**20), [picture(1), picture(2)]
    documents = [Images(pictures), Images(pictures[::-1]), pictures[0], ImageText(Images(pictures), "a")]
    expected = ask(None, documents=documents)
    assert ask(cache, documents=documents).embedding_cache == CacheUse(0, 4)
    again = ask(cache, documents=documents)
    assert again.embedding_cache == CacheUse(4, 0)
    assert comparable(again) == comparable(expected)
    assert len({result.relevance_score for result in again.results}) == 4
    assert ask(cache, Images(pictures[:1]), ["a"]).embedding_cache == CacheUse(0, 1)
    assert ask(cache, pictures[0], ["a"]).embedding_cache == CacheUse(1, 0)


@pytest.mark.parametrize("kind", [InferenceError, RequestRejectedError])
def test_nothing_failed_is_kept(kind: type[Exception]) -> None:
    failing = [True]

    def fail(request: Request) -> None:
        if failing[0] and isinstance(request, InferRequest) and request.model_name == "rerank_image":
            raise kind("short of memory")

    cache, expected = MemoryEmbeddingCache(2**20), ask(None, documents=["a", picture(1)])
    with pytest.raises(kind, match="short of memory"):
        ask(cache, documents=["a", picture(1)], transport=FakeTransport(fail, PATCHES_MANIFEST))
    failing[0] = False
    for _ in range(2):
        assert comparable(ask(cache, documents=["a", picture(1)])) == comparable(expected)


class ShortCache(MemoryEmbeddingCache):
    """Answers less than it is asked."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return []


def test_a_cache_that_breaks_its_promise_costs_no_call() -> None:
    assert comparable(ask(ShortCache(2**20))) == comparable(ask(None))


def test_file_that_changes_is_another_document(tmp_path: Path) -> None:
    path, cache = tmp_path / "image.png", MemoryEmbeddingCache(2**20)
    scores = []
    for colour in ("red", "blue", "blue"):
        PIL.Image.new("RGB", (112, 112), colour).save(path)
        response = ask(cache, documents=[Image.from_path(path)])
        scores.append(response.results[0].relevance_score)
    assert scores[0] != scores[1] == scores[2]
    assert response.embedding_cache == CacheUse(1, 0)


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -0.1, 1.5])
def test_entries_that_are_no_scores_are_misses(score: float) -> None:
    good = Score(0.5, 1.0, "text", TokenizedText(range(3), truncated=False, bucket=64), None)
    entry = write_score(KEY, good)
    found = read_score(KEY, entry, "a")
    assert found is not None
    assert (found.relevance_score, found.logit, len(found.tokens.ids)) == (0.5, 1.0, 3)  # type: ignore[union-attr]
    for damaged in (None, b"", entry[:-1], entry + b"x", bytes(len(entry)), entry[:5] + b"x" + entry[6:]):
        assert read_score(KEY, damaged, "a") is None
    assert read_score(bytes([1]) * 32, entry, "a") is None
    assert read_score(KEY, write_score(KEY, replace(good, relevance_score=score)), "a") is None
