"""Calls to models that read pages: what is prepared, encoded, kept and refused."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.dual_encoder import FakeTransport, make_tokenizer_json
from fakes.late_interaction import DIM, EDGE, PAGES_MANIFEST, answer, embed
from lychee_client import ContractError, Image, Images, ImageText, InvalidInputError, LycheeClient
from lychee_client._embedding_cache import CachedEmbedding, read_token_vectors, write_token_vectors
from lychee_client.manifest import PageInteractionSpec, TextSpec
from lychee_client.memory_cache import MemoryEmbeddingCache
from lychee_client.preprocessing.image import ImageSizes
from lychee_client.preprocessing.page_text import PageTextProcessor
from lychee_client.preprocessing.text import TokenizedText
from lychee_client.transports.base import InferRequest, InferResponse, Request
from msgspec import convert


def make_processor(**changes: Any) -> PageTextProcessor:
    late = convert({**PAGES_MANIFEST["late_interaction"], **changes}, PageInteractionSpec)
    return PageTextProcessor(make_tokenizer_json(), convert(PAGES_MANIFEST["text"], TextSpec), late)


def shade(value: int) -> Image:
    return Image.from_numpy(np.full((4, 6, 3), value, np.uint8))


def score(query: str, document: str | int) -> float:
    """Score a text, or a page of one shade, by itself."""
    texts = make_processor()
    asked = embed(np.array(texts.tokenize_query(query).ids)).astype(np.float32)
    if isinstance(document, str):
        ids = np.array(texts.tokenize_documents([document])[0].ids)
    else:
        ids = (np.array(texts.tokenize_page(4).ids) + document) % 300
    return float((1 + (asked @ embed(ids).astype(np.float32).T).max(1).mean()) / 2)


def asked(transport: FakeTransport, model: str) -> list[InferRequest]:
    return [each for each in transport.requests if isinstance(each, InferRequest) and each.model_name == model]


@pytest.mark.parametrize("cached", [False, True])
def test_texts_and_pages_are_scored_by_themselves(cached: bool) -> None:
    transport = FakeTransport(answer, PAGES_MANIFEST)
    cache = MemoryEmbeddingCache(2**20) if cached else None
    page = shade(9)
    documents = [
        "some text",
        page,
        ImageText(page, "with text"),
        Images((page, page)),
        shade(70),
        Image.from_bytes(b"?"),
    ]
    with LycheeClient(transport=transport, embedding_cache=cache) as client:
        response = client.rerank("a", documents)
        with pytest.raises(InvalidInputError, match="fake reads only texts as a query"):
            client.rerank(page, documents)
    seen = {result.index: result for result in response.results}
    expected = {0: score("a", "some text"), 1: score("a", 9), 4: score("a", 70)}
    assert {index: result.relevance_score for index, result in seen.items()} == pytest.approx(expected, abs=1e-6)
    assert (seen[1].image_size, seen[1].image_resized_to, seen[1].image_tokens) == ((6, 4), (EDGE, EDGE), 4)
    assert (seen[1].modality, seen[1].tokens) == ("image", len("a #page") + 3)
    errors = {error.index: str(error.error) for error in response.errors}
    assert set(errors) == {2, 3, 5}
    assert "reads only texts or images as a document" in errors[2]
    assert "the document has 2 images, fake reads one as a page; send each as a document of its own" in errors[3]
    for request in asked(transport, "text_encoder"):
        assert request.inputs["image_embeds"].shape == (request.rows, 1, 5)
    assert {request.inputs["pixel_values"].shape for request in asked(transport, "image_encoder")} == {
        (1, 1, 3, EDGE, EDGE)
    }


def test_cached_pages_are_neither_prepared_nor_encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import PIL.Image

    path = tmp_path / "page.png"
    PIL.Image.new("RGB", (20, 30), (33, 1, 2)).save(path)
    transport = FakeTransport(answer, PAGES_MANIFEST)
    with LycheeClient(transport=transport) as client:
        first = client.rerank("a", ["text", Image.from_path(path)])
        before = len(asked(transport, "image_encoder"))
        monkeypatch.setattr(Image, "prepare", lambda *_, **__: pytest.fail("an image was prepared"))
        second = client.rerank("a", [Image.from_bytes(path.read_bytes()), "text"])
    assert (before, len(asked(transport, "image_encoder"))) == (1, 1)
    assert (first.embedding_cache.hits, first.embedding_cache.misses) == (0, 2)
    assert (second.embedding_cache.hits, second.embedding_cache.misses) == (2, 0)
    one, two = ({result.modality: result for result in each.results} for each in (first, second))
    for modality in ("text", "image"):
        assert one[modality].relevance_score == pytest.approx(two[modality].relevance_score, abs=1e-6)
        assert one[modality].tokens == two[modality].tokens
    assert (two["image"].image_size, two["image"].image_resized_to) == ((20, 30), (EDGE, EDGE))
    assert two["image"].image_tokens == 4


@pytest.mark.parametrize("change", ["late_interaction", "image", "vision", "text_encoder"])
def test_another_reading_of_a_page_is_another_entry(change: str) -> None:
    cache = MemoryEmbeddingCache(2**20)
    files = {"text_encoder/model.onnx": "1" * 64, "vision_encoder/model.onnx": "2" * 64}
    files["tokenizer"] = hashlib.sha256(make_tokenizer_json().encode()).hexdigest()
    changes: dict[str, dict[str, Any]] = {
        "late_interaction": {"late_interaction": {**PAGES_MANIFEST["late_interaction"], "page": "another #"}},
        "image": {"image": {**PAGES_MANIFEST["image"], "resample": "bilinear"}},
        "vision": {"artifacts": {**files, "vision_encoder/model.onnx": "3" * 64}},
        "text_encoder": {"artifacts": {**files, "text_encoder/model.onnx": "3" * 64}},
    }
    uses = []
    for changed in ({}, {}, changes[change]):
        manifest = {**PAGES_MANIFEST, "artifacts": files, **changed}
        with LycheeClient(transport=FakeTransport(answer, manifest), embedding_cache=cache) as client:
            uses.append(client.rerank("a", [shade(5)]).embedding_cache)
    assert [(use.hits, use.misses) for use in uses] == [(0, 1), (1, 0), (0, 1)]


def test_bad_vector_of_a_page_is_its_own_error() -> None:
    def spoil(request: Request) -> InferResponse | None:
        response = answer(request)
        if response is not None and isinstance(request, InferRequest) and request.model_name == "image_encoder":
            vectors = response.outputs["token_embeddings"].copy()
            if request.inputs["pixel_values"].flat[0] == 9:
                vectors[:] = np.nan
            return InferResponse({"token_embeddings": vectors})
        return response

    with LycheeClient(transport=FakeTransport(spoil, PAGES_MANIFEST)) as client:
        response = client.rerank("a", [shade(8), shade(9), "text"])
    assert {result.index for result in response.results} == {0, 2}
    (error,) = response.errors
    assert (error.index, "image_encoder of fake in fp32 gave NaN" in str(error.error)) == (1, True)


def test_page_longer_than_the_model_reads_is_its_own_error() -> None:
    image = {**PAGES_MANIFEST["image"], "tile_tokens": 27}
    with LycheeClient(transport=FakeTransport(answer, {**PAGES_MANIFEST, "image": image})) as client:
        response = client.rerank("a", ["text", shade(1)])
    assert [result.index for result in response.results] == [0]
    (error,) = response.errors
    assert "the image takes 33 tokens with the page's prompt, the model reads 32; lower max_img_size" in str(
        error.error
    )


def test_query_keeps_its_suffix_where_it_is_cut() -> None:
    texts = make_processor()
    short, long = texts.tokenize_query("ab"), texts.tokenize_query("abcdefghijklmnop")
    suffix = list(short.ids[-2:])
    assert suffix[0] == suffix[1]
    assert (len(long.ids), list(long.ids[-2:]), long.truncated, short.truncated) == (12, suffix, True, False)
    assert long.ids[:10] == texts.tokenize_query("abcdef").ids[:10]
    surpluses = {length: texts.find_query_surplus("a" * length) for length in (1, 5, 6, 40)}
    assert surpluses == {1: -4, 5: 0, 6: 1, 40: 35}
    assert [texts.tokenize_query("a" * length).truncated for length in surpluses] == [False, False, True, True]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"page": "a <image>", "image_token": "<image>"}, "has no token '<image>', which stands for an image"),
        (
            {"query_suffix": "+" * 12},
            "what follows every query takes 12 tokens, and late_interaction.query_tokens is 12",
        ),
    ],
)
def test_prompt_that_does_not_fit_the_tokenizer_is_a_contract_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        make_processor(**changes)


def test_entry_of_a_cache_holds_the_sizes_of_a_page() -> None:
    text = TokenizedText([0, 5, 2], truncated=False, bucket=16)
    vectors = np.arange(3 * DIM, dtype=np.float16).reshape(3, DIM)
    image = ImageSizes((20, 30), (8, 8), 4)
    entry = write_token_vectors(b"k" * 32, CachedEmbedding(vectors, image, text))
    read = read_token_vectors(b"k" * 32, entry, DIM)
    assert read is not None
    assert read.image == image
    np.testing.assert_array_equal(read.vector, vectors)
    for place in range(len(entry)):
        assert (
            read_token_vectors(b"k" * 32, entry[:place] + bytes([entry[place] ^ 1]) + entry[place + 1 :], DIM) is None
        )


def test_probe_asks_encoders_and_head() -> None:
    transport = FakeTransport(answer, PAGES_MANIFEST)
    with LycheeClient(transport=transport) as client:
        models = client.manifest().asked_models
        assert set(models) == {"text_encoder", "image_encoder", "scoring_head"}
        for model in models:
            client.probe(model)
        with pytest.raises(ContractError, match="names a model vision_encoder; expected"):
            client.probe("vision_encoder")
    for model in models:
        assert len(asked(transport, model)) == 1
