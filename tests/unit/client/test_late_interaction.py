"""Calls to models with late interaction: what is encoded, kept, packed and sent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fakes.dual_encoder import FakeTransport, make_tokenizer_json
from fakes.late_interaction import DIM, DOT, FILL, LATE_MANIFEST, QUERY_MARKER, QUERY_TOKENS, answer, embed
from lychee_client import ContractError, Image, InvalidInputError, LycheeClient
from lychee_client._embedding_cache import CachedEmbedding, read_token_vectors, write_token_vectors
from lychee_client._pipelines.late_interaction import VECTORS_PER_REQUEST, group_by_length, pack
from lychee_client.chunking import Chunking
from lychee_client.manifest import LateInteractionSpec, TextSpec
from lychee_client.preprocessing.marked_text import MarkedTextProcessor
from lychee_client.preprocessing.text import TokenizedText
from lychee_client.transports.base import InferRequest, InferResponse, Request
from msgspec import convert

DOCUMENTS = ["aa", "a.b.c", "zz zz zz", "a longer document", "aa", "dots...", "abc def ghi jkl mno pqr stu vwx yz"]


def make_processor(**changes: Any) -> MarkedTextProcessor:
    late = convert({**LATE_MANIFEST["late_interaction"], **changes}, LateInteractionSpec)
    return MarkedTextProcessor(make_tokenizer_json(), convert(LATE_MANIFEST["text"], TextSpec), late)


def score(query: str, document: str) -> float:
    """Score a pair by itself."""
    texts = make_processor()
    vectors = embed(np.array(texts.tokenize_query(query).ids)).astype(np.float32)
    (text,) = texts.tokenize_documents([document])
    counted = [token for token in text.ids if token not in (1, DOT)]
    largest = (vectors @ embed(np.array(counted)).astype(np.float32).T).max(1)
    return float((1 + largest.mean()) / 2)


def asked(transport: FakeTransport, model: str) -> list[InferRequest]:
    return [each for each in transport.requests if isinstance(each, InferRequest) and each.model_name == model]


def test_documents_are_scored_by_themselves_and_images_are_refused() -> None:
    transport = FakeTransport(answer, LATE_MANIFEST)
    picture = Image.from_numpy(np.zeros((4, 4, 3), np.uint8))
    with LycheeClient(transport=transport, embedding_cache=None) as client:
        response = client.rerank("a. cat", [*DOCUMENTS, picture])  # a full stop counts in queries alone
        with pytest.raises(InvalidInputError, match="reads only texts as a query"):
            client.rerank(picture, DOCUMENTS)
    seen = {result.index: result.relevance_score for result in response.results}
    assert seen == pytest.approx({index: score("a. cat", text) for index, text in enumerate(DOCUMENTS)}, abs=1e-6)
    (error,) = response.errors
    assert "fake reads only texts as a document. Images are read by" in str(error.error)
    assert {result.index for result in response.results if result.truncated} == {6}


def test_one_row_holds_at_most_so_many_documents() -> None:
    transport = FakeTransport(answer, LATE_MANIFEST)
    with LycheeClient(transport=transport, embedding_cache=None) as client:
        client.rerank("a cat", DOCUMENTS)
    shapes = [request.inputs["document_embeddings"].shape for request in asked(transport, "scoring_head")]
    assert [(rows, documents) for rows, documents, *_ in shapes] == [(1, 5), (1, 2)]
    assert {request.inputs["query_embeddings"].shape for request in asked(transport, "scoring_head")} == {
        (1, 1, QUERY_TOKENS, DIM)
    }


def test_cached_documents_are_neither_tokenized_nor_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = FakeTransport(answer, LATE_MANIFEST)
    with LycheeClient(transport=transport) as client:
        first = client.rerank("a cat", DOCUMENTS)
        before = len(asked(transport, "text_encoder"))
        tokenized: list[str] = []
        tokenize = MarkedTextProcessor.tokenize_documents
        monkeypatch.setattr(
            MarkedTextProcessor,
            "tokenize_documents",
            lambda self, texts: tokenized.extend(texts) or tokenize(self, texts),
        )
        second = client.rerank("a cat", [*DOCUMENTS, "new"])
    assert tokenized == ["new"]
    assert sum(request.rows for request in asked(transport, "text_encoder")[before:]) == 2  # the query and the new one
    assert (first.embedding_cache.hits, first.embedding_cache.misses) == (0, 6)  # one document is there twice
    assert (second.embedding_cache.hits, second.embedding_cache.misses) == (6, 1)
    again = {result.index: result for result in second.results}
    assert [again[result.index] for result in first.results] == list(first.results)
    expected = {index: score("a cat", text) for index, text in enumerate([*DOCUMENTS, "new"])}
    assert {index: result.relevance_score for index, result in again.items()} == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("change", ["late_interaction", "text", "artifacts"])
def test_another_reading_of_a_text_is_another_entry(change: str) -> None:
    from lychee_client.memory_cache import MemoryEmbeddingCache

    changes: dict[str, Any] = {
        "late_interaction": {**LATE_MANIFEST["late_interaction"], "skipped_token_ids": []},
        "text": {**LATE_MANIFEST["text"], "max_tokens": 31},
        "artifacts": {"text_encoder/model.onnx": "1" * 64},
    }
    cache = MemoryEmbeddingCache(2**20)
    manifests = [LATE_MANIFEST, {**LATE_MANIFEST, change: changes[change]}]
    if change == "artifacts":
        import hashlib

        changes[change]["tokenizer"] = hashlib.sha256(make_tokenizer_json().encode()).hexdigest()
    uses = []
    for manifest in manifests:
        with LycheeClient(transport=FakeTransport(answer, manifest), embedding_cache=cache) as client:
            uses.append(client.rerank("a cat", DOCUMENTS[:2]).embedding_cache)
    assert [(use.hits, use.misses) for use in uses] == [(0, 2), (0, 2)]


def test_query_is_encoded_once_for_the_chunks_of_long_documents() -> None:
    transport = FakeTransport(answer, LATE_MANIFEST)
    with LycheeClient(transport=transport) as client:
        response = client.rerank("a cat", ["a long text. " * 9], chunking=Chunking())
    assert response.results[0].chunk is not None
    queries = [row for request in asked(transport, "text_encoder") for row in request.inputs["input_ids"]]
    assert sum(row[1] == QUERY_MARKER for row in queries) == 1


def test_bad_vector_of_a_document_is_its_own_error() -> None:
    def spoil(request: Request) -> InferResponse | None:
        response = answer(request)
        if response is not None and "token_embeddings" in response.outputs:
            vectors = response.outputs["token_embeddings"].copy()
            vectors[(request.inputs["input_ids"] == DOT).any(1)] = np.nan  # type: ignore[union-attr]
            return InferResponse({"token_embeddings": vectors})
        return response

    with LycheeClient(transport=FakeTransport(spoil, LATE_MANIFEST)) as client:
        response = client.rerank("a cat", DOCUMENTS)
    assert {error.index for error in response.errors} == {1, 5}
    assert "text_encoder of fake in fp32 gave NaN as token_embeddings" in str(response.errors[0].error)


def test_answer_of_another_shape_is_a_contract_error() -> None:
    def cut(request: Request) -> InferResponse | None:
        response = answer(request)
        if response is not None and "token_embeddings" in response.outputs:
            return InferResponse({"token_embeddings": response.outputs["token_embeddings"][..., 1:]})
        return response

    with (
        LycheeClient(transport=FakeTransport(cut, LATE_MANIFEST)) as client,
        pytest.raises(ContractError, match="as token_embeddings, expected float16"),
    ):
        client.rerank("a cat", DOCUMENTS)


def test_queries_are_filled_and_cut_to_their_length() -> None:
    texts = make_processor()
    short, long = texts.tokenize_query("ab"), texts.tokenize_query("abcdefghijklmnop")
    assert list(short.ids)[:2] == [0, QUERY_MARKER]
    assert list(short.ids)[5:] == [FILL] * (QUERY_TOKENS - 5)
    assert (short.attended, short.truncated, short.bucket) == (5, False, 16)
    assert (len(long.ids), long.ids[-1], long.attended, long.truncated) == (QUERY_TOKENS, 2, QUERY_TOKENS, True)
    assert make_processor(attends_to_fill=True).tokenize_query("ab").attended is None
    mask = texts.to_tensors([short])["attention_mask"]
    assert mask[0].tolist() == [1] * 5 + [0] * 11


@pytest.mark.parametrize(("length", "surplus"), [(1, -8), (9, 0), (10, 1), (40, 31)])
def test_surplus_of_a_query_counts_marker_and_ends(length: int, surplus: int) -> None:
    assert make_processor().find_query_surplus("a" * length) == surplus


@pytest.mark.parametrize(("length", "surplus"), [(29, 0), (30, 1), (60, 31)])
def test_surplus_of_a_document_counts_marker_and_ends(length: int, surplus: int) -> None:
    assert make_processor().find_document_surplus("a" * length) == surplus


def test_padding_repeats_a_vector_of_the_document() -> None:
    documents = [np.full((2, 3), 1, np.float16), np.arange(12, dtype=np.float16).reshape(4, 3)]
    packed = pack(documents)
    assert packed.dtype == np.float16
    assert packed[0].tolist() == [[1, 1, 1]] * 4
    assert packed[1].tolist() == documents[1].tolist()


def test_groups_hold_all_documents_and_few_vectors() -> None:
    counts = {index: 1 + index * 7 % 300 for index in range(1000)}
    groups = list(group_by_length(counts, 512))
    assert sorted(index for group in groups for index in group) == list(range(1000))
    sizes = [len(group) * max(counts[index] for index in group) for group in groups]
    assert max(sizes) <= VECTORS_PER_REQUEST
    assert sum(sizes) < 1.15 * sum(counts.values())
    assert list(group_by_length({3: 10**6}, 512)) == [[3]]


def test_entry_of_a_cache_is_read_whole_or_not_at_all() -> None:
    text = TokenizedText([0, 301, 5, 2], truncated=True, bucket=16)
    vectors = np.arange(3 * DIM, dtype=np.float16).reshape(3, DIM)
    key = b"k" * 32
    entry = write_token_vectors(key, CachedEmbedding(vectors, text=text))
    read = read_token_vectors(key, entry, DIM)
    assert read is not None
    assert read.text is not None
    np.testing.assert_array_equal(read.vector, vectors)
    assert (list(read.text.ids), read.text.truncated, read.text.bucket) == ([0, 301, 5, 2], True, 16)
    damaged = [entry[:place] + bytes([entry[place] ^ 1]) + entry[place + 1 :] for place in range(len(entry))]
    cut = [entry[:length] for length in range(len(entry))]
    assert [read_token_vectors(key, wrong, DIM) for wrong in (None, b"", *damaged, *cut)] == [None] * (
        2 + 2 * len(entry)
    )
    assert read_token_vectors(b"l" * 32, entry, DIM) is None
    assert read_token_vectors(key, entry, DIM + 1) is None


def test_probe_asks_encoder_and_head() -> None:
    transport = FakeTransport(answer, LATE_MANIFEST)
    with LycheeClient(transport=transport) as client:
        manifest = client.manifest()
        assert set(manifest.asked_models) == {"text_encoder", "scoring_head"}
        client.rerank("a", ["b"])
    assert {request.model_name for request in transport.requests if isinstance(request, InferRequest)} == {
        "client_assets",
        "text_encoder",
        "scoring_head",
    }
