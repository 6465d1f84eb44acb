"""What the model computed is no number: an error of its document, and never in a cache."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fakes.cross_encoder import PATCHES_MANIFEST
from fakes.dual_encoder import FakeTransport
from lychee_client import (
    AsyncLycheeClient,
    DocumentError,
    Image,
    ImageText,
    InvalidOutputError,
    LycheeClient,
    MemoryEmbeddingCache,
    RerankResponse,
)
from lychee_client.transports.base import InferRequest, InferResponse, Request, Transport
from lychee_client.types import Input

PICTURE = Image.from_numpy(np.full((112, 112, 3), 200, np.uint8))
OUTPUTS = {"text_encoder": "text_embedding", "vision_encoder": "image_embedding"}
Rerank = Callable[..., RerankResponse]


class Spoiled(FakeTransport):
    """Computes as the fake server does, but for some rows.

    Args:
        model_name: The model that is spoiled.
        value: What it gives instead of a number.
        rows: The rows of its first answer that have it; None: all rows of every answer.
        output: The output that has it; None: each.
        manifest: As the fake server takes it.
    """

    def __init__(
        self, model_name: str, value: float, rows: list[int] | None = None, output: str | None = None, **options: Any
    ) -> None:
        super().__init__(self._spoil, **options)
        self.healed = False
        self._model_name, self._value, self._rows, self._output = model_name, value, rows, output
        self._reference = FakeTransport(**options)

    def _spoil(self, request: Request) -> InferResponse | None:
        if self.healed or not isinstance(request, InferRequest) or request.model_name != self._model_name:
            return None
        answer = self._reference.send(request, None).result()
        outputs = {name: tensor.copy() for name, tensor in answer.outputs.items()}
        for name, tensor in outputs.items():
            if self._output in (None, name):
                tensor[slice(None) if self._rows is None else self._rows, -1] = self._value
        self.healed = self._rows is not None
        return InferResponse(outputs)


@pytest.fixture(params=["sync", "async"])
def rerank(request: pytest.FixtureRequest) -> Rerank:
    def call(transport: Transport, query: Input, documents: list[Input], **options: Any) -> RerankResponse:
        if request.param == "sync":
            with LycheeClient(transport=transport, **options) as client:
                return client.rerank(query, documents)

        async def run() -> RerankResponse:
            async with AsyncLycheeClient(transport=transport, **options) as client:
                return await client.rerank(query, documents)

        return asyncio.run(run())

    return call


def check_error(failed: DocumentError, index: int, *words: str) -> None:
    assert isinstance(failed.error, InvalidOutputError)
    assert (failed.index, failed.error.index, failed.error.retryable) == (index, index, False)
    assert str(failed.error) == f"document {index}: {failed.message}"
    for word in ("lychee doctor", "another precision", *words):
        assert word in failed.message


@pytest.mark.parametrize(
    ("output", "value"),
    [(name, value) for name in ("relevance_score", "logits") for value in (np.nan, np.inf, -np.inf)]
    + [("relevance_score", 1.01), ("relevance_score", -0.01)],
)
@pytest.mark.parametrize("model", ["scoring_head_text", "rerank_text"])
def test_score_that_is_no_number_is_an_error_of_its_document(
    rerank: Rerank, model: str, output: str, value: float
) -> None:
    manifest = PATCHES_MANIFEST if model == "rerank_text" else None
    documents: list[Input] = ["a", "bb", "ccc", "", PICTURE]
    expected = rerank(FakeTransport(manifest=manifest), "q", documents)
    response = rerank(Spoiled(model, value, [1], output, manifest=manifest), "q", documents)
    assert response.results == tuple(result for result in expected.results if result.index != 1)
    spoiled, empty = response.errors
    shown = str(np.float32(value)).replace("nan", "NaN")
    check_error(spoiled, 1, f"{model} of fake in fp32 gave {shown} as {output}")
    assert empty == replace(expected.errors[0], error=empty.error)


def test_image_whose_score_is_no_number_is_an_error_of_its_document(rerank: Rerank) -> None:
    transport = Spoiled("rerank_image", np.nan, [0], manifest=PATCHES_MANIFEST)
    response = rerank(transport, "q", [PICTURE, "text", ImageText(PICTURE, "both")])
    assert sorted(result.index for result in response.results) == [1, 2]
    check_error(response.errors[0], 0, "rerank_image", "gave NaN")


@pytest.mark.parametrize("encoder", OUTPUTS)
def test_embedding_that_is_not_finite_is_an_error_of_every_document_that_has_it(rerank: Rerank, encoder: str) -> None:
    other = Image.from_numpy(np.zeros((50, 50), np.uint8))
    documents: list[Input] = ["text", PICTURE, ImageText(PICTURE, "text"), "good", other]
    query, spoiled = (other, [0, 2]) if encoder == "text_encoder" else ("q", [1, 2])
    response = rerank(Spoiled(encoder, np.nan, [0]), query, documents)
    assert [failed.index for failed in response.errors] == spoiled
    assert sorted(result.index for result in response.results) == sorted({*range(5)} - {*spoiled})
    for failed in response.errors:
        check_error(failed, failed.index, f"{encoder} of fake", OUTPUTS[encoder])


@pytest.mark.parametrize("query", ["q", PICTURE, ImageText(PICTURE, "q")], ids=["text", "image", "both"])
def test_query_whose_embedding_is_not_finite_fails_the_call(rerank: Rerank, query: Input) -> None:
    encoder = "text_encoder" if query == "q" else "vision_encoder"
    with pytest.raises(InvalidOutputError, match=f"^query: {encoder} of fake in fp32 gave inf") as caught:
        rerank(Spoiled(encoder, np.inf), query, ["d", PICTURE])
    assert (caught.value.index, caught.value.model_name) == (None, encoder)


@pytest.mark.parametrize("manifest", [None, PATCHES_MANIFEST], ids=["dual encoder", "cross-encoder"])
def test_call_without_any_score_fails(rerank: Rerank, manifest: dict[str, Any] | None) -> None:
    """An empty ranking would look as if nothing had been found."""
    model = "scoring_head_text" if manifest is None else "rerank_text"
    with pytest.raises(InvalidOutputError, match=f"^{model} of fake") as caught:
        rerank(Spoiled(model, np.nan, manifest=manifest), "q", ["a", "", "b"])
    assert caught.value.index is None
    with LycheeClient(transport=Spoiled(model, np.nan, manifest=manifest)) as client:
        with pytest.raises(InvalidOutputError, match="gave NaN"):
            client.score("q", "a")
        (answer,) = client.rerank_many([("q", ["a"])])
        assert isinstance(answer.error, InvalidOutputError)


@pytest.mark.parametrize(
    "model", ["text_encoder", "vision_encoder", "scoring_head_text", "rerank_text", "rerank_image"]
)
def test_what_is_no_number_is_never_cached(rerank: Rerank, model: str) -> None:
    cache, manifest = MemoryEmbeddingCache(2**20), PATCHES_MANIFEST if "rerank" in model else None
    documents: list[Input] = ["a", PICTURE] if "text" in model else [PICTURE, "a"]
    query: Input = PICTURE if model == "text_encoder" else "q"
    expected = rerank(FakeTransport(manifest=manifest), query, documents, embedding_cache=None)
    spoiled = rerank(Spoiled(model, np.nan, [0], manifest=manifest), query, documents, embedding_cache=cache)
    check_error(spoiled.errors[0], 0)
    assert cache.statistics().entries == (2 if model == "scoring_head_text" else 1)
    for _ in range(2):
        again = rerank(FakeTransport(manifest=manifest), query, documents, embedding_cache=cache)
        assert (again.results, again.errors) == (expected.results, ())


@pytest.mark.parametrize("model", ["scoring_head_text", "text_encoder"])
def test_golden_pairs_without_a_number_do_not_match(model: str) -> None:
    pairs = [{"query": {"text": "a"}, "document": {"text": text}, "relevance_score": 0.5} for text in ("b", "c")]
    transport = Spoiled(model, np.nan, [0], manifest={"golden_pairs": {"tolerance": 1.0, "pairs": pairs}})
    with LycheeClient(transport=transport) as client:
        report = client.check_golden_pairs()
    assert (report.passed, report.max_abs_error) == (False, math.inf)
    assert math.isnan(report.pairs[0].measured)
    assert report.mismatch is not None
    assert "1 of 2 golden pairs do not match (1 got no number)" in report.mismatch


@pytest.mark.parametrize("model", ["text_encoder", "vision_encoder", "scoring_head_image"])
def test_probe_that_gets_no_number_fails(model: str) -> None:
    with LycheeClient(transport=Spoiled(model, np.nan)) as client, pytest.raises(InvalidOutputError, match=model):
        client.probe(model)
