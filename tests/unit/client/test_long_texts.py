"""Long documents and queries on the fake transport, with both families and both clients."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from fakes.cross_encoder import PATCHES_MANIFEST
from fakes.dual_encoder import MANIFEST, FakeTransport
from lychee_client import (
    AsyncLycheeClient,
    Chunk,
    Chunking,
    ConfigurationError,
    DeadlineExceededError,
    Image,
    ImageText,
    InvalidInputError,
    InvalidOutputError,
    LycheeClient,
    LycheeWarning,
    RequestRejectedError,
    RerankResponse,
    RerankResult,
    Text,
)
from lychee_client._pieces import Piece, Pieces
from lychee_client._pipelines.scoring import Outcome, Score
from lychee_client.preprocessing.text import TokenizedText
from lychee_client.transports.base import InferRequest, InferResponse, Request
from lychee_client.types import Input, text_of

PICTURE = Image.from_numpy(np.full((112, 112, 3), 200, np.uint8))
# "passage: " and two special tokens; "I:Find it. Q:cat D:" and two special tokens.
ROOM = {"dual": 64 - 11, "cross": 256 - 21}
LONG = "".join(f"word {number:03} " for number in range(70))
Rerank = Callable[..., RerankResponse]


@pytest.fixture(params=["dual", "cross"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def connect(family: str, intercept: Callable[[Request], Any] | None = None) -> FakeTransport:
    return FakeTransport(intercept, PATCHES_MANIFEST if family == "cross" else MANIFEST)


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Rerank:
    """Rank on a transport."""

    def synchronous(transport: FakeTransport, query: Input, documents: Sequence[Input], **options: Any) -> Any:
        with LycheeClient(transport=transport) as client:
            return client.rerank(query, documents, **options)

    async def asynchronous(transport: FakeTransport, query: Input, documents: Sequence[Input], **options: Any) -> Any:
        async with AsyncLycheeClient(transport=transport) as client:
            return await client.rerank(query, documents, **options)

    if request.param == "sync":
        return synchronous
    return lambda *arguments, **options: asyncio.run(asynchronous(*arguments, **options))


def by_index(response: RerankResponse) -> list[RerankResult]:
    assert response.errors == ()
    return sorted(response.results, key=lambda result: result.index)


def rows_sent(transport: FakeTransport, names: Sequence[str]) -> int:
    return sum(
        request.rows
        for request in transport.requests
        if isinstance(request, InferRequest) and request.model_name in names
    )


def test_long_document_has_the_score_of_its_best_chunk(family: str, call: Rerank) -> None:
    (result,) = by_index(call(connect(family), "cat", [LONG], chunking=Chunking(10, None)))
    assert result.chunk is not None
    best = LONG[result.chunk.start : result.chunk.end]
    (alone,) = by_index(call(connect(family), "cat", [best]))
    assert (result.logit, result.tokens) == (pytest.approx(alone.logit, abs=1e-6), alone.tokens)
    assert (result.truncated, alone.chunk) == (False, None)
    assert len(best.encode()) <= ROOM[family]
    so_far = [by_index(call(connect(family), "cat", [LONG], chunking=Chunking(10, most)))[0] for most in (1, 2, 3, 99)]
    logits = [each.logit for each in so_far]
    assert logits == sorted(logits)
    assert (so_far[0].chunk.start, logits[-1]) == (0, result.logit)  # type: ignore[union-attr]


def test_chunk_that_matches_is_found_wherever_it_stands(call: Rerank) -> None:
    needle = "cat cat cat cat cat cat cat cat cat cat"
    for place in (0, 20, 69):
        words = [f"word {number:03}" for number in range(70)]
        words[place] = needle
        text = " ".join(words)
        (result,) = by_index(call(connect("dual"), "cat", [text], chunking=Chunking(max_chunks_per_doc=None)))
        assert result.chunk is not None
        assert "cat cat cat" in text[result.chunk.start : result.chunk.end]


def test_document_that_fits_is_read_as_without_chunking(family: str, call: Rerank) -> None:
    documents: list[Input] = ["a" * ROOM[family], Text("bb"), PICTURE, ImageText(PICTURE, "猫")]
    expected = call(connect(family), "cat", documents)
    transport = connect(family)
    assert call(transport, "cat", documents, chunking=Chunking()).results == expected.results
    assert all(result.chunk is None for result in expected.results)
    assert by_index(call(connect(family), "cat", ["a" * (ROOM[family] + 1)], chunking=Chunking()))[0].chunk is not None


def test_chunks_of_a_document_with_an_image_are_read_with_it(family: str, call: Rerank) -> None:
    transport = connect(family)
    (result,) = by_index(call(transport, "cat", [ImageText(PICTURE, LONG)], chunking=Chunking(0, None)))
    assert (result.modality, result.truncated) == ("image_text", False)
    assert result.chunk is not None
    if family == "dual":
        assert rows_sent(transport, ["vision_encoder"]) == 1  # the picture is encoded once
    else:
        image_tokens = 16
        assert result.image_tokens == image_tokens
        assert rows_sent(transport, ["rerank_image"]) == 3
        assert result.chunk.end - result.chunk.start <= ROOM[family] - image_tokens
    (alone,) = by_index(call(connect(family), "cat", [ImageText(PICTURE, LONG[result.chunk.start : result.chunk.end])]))
    assert result.logit == pytest.approx(alone.logit, abs=1e-6)


def test_offsets_count_code_points(family: str, call: Rerank) -> None:
    text = "😀猫é\u0301 " * 200
    (result,) = by_index(call(connect(family), "cat", [text], chunking=Chunking(max_chunks_per_doc=None)))
    assert result.chunk is not None
    part = text[result.chunk.start : result.chunk.end]
    assert len(part.encode()) <= ROOM[family]
    (alone,) = by_index(call(connect(family), "cat", [part]))
    assert result.logit == pytest.approx(alone.logit, abs=1e-6)
    assert part[0] in "😀猫é"


def test_chunks_beyond_the_limit_are_not_read(family: str, call: Rerank) -> None:
    transport = connect(family)
    (result,) = by_index(call(transport, "cat", [LONG], chunking=Chunking(0, 2)))
    assert (result.truncated, result.chunk is not None) == (True, True)
    assert rows_sent(transport, ["scoring_head_text", "rerank_text"]) == 2
    response = call(connect(family), "cat", [LONG], chunking=Chunking(0, 2), truncation=False)
    (failed,) = response.errors
    assert isinstance(failed.error, InvalidInputError)
    assert "more than 2 chunks" in failed.message
    assert f"of {len(LONG)}" in failed.message


def test_response_counts_all_tokens_that_were_read(family: str, call: Rerank) -> None:
    plain = call(connect(family), "cat", ["a", "bb"])
    assert plain.tokens_read == sum(result.tokens for result in plain.results) + (plain.query.tokens or 0)
    chunked = call(connect(family), "cat", ["a", LONG], chunking=Chunking(0))
    assert chunked.tokens_read > len(LONG)
    assert chunked.tokens_read > 2 * max(result.tokens for result in chunked.results)


def test_chunks_come_from_the_cache(family: str) -> None:
    transport = connect(family)
    with LycheeClient(transport=transport) as client:
        first = client.rerank("cat", [LONG], chunking=Chunking(0))
        again = client.rerank("cat", [LONG], chunking=Chunking(0))
    assert first.embedding_cache is not None
    assert again.embedding_cache is not None
    assert (again.embedding_cache.hits, again.embedding_cache.misses) == (first.embedding_cache.misses, 0)
    assert again.results == first.results


def test_documents_are_cut_to_so_many_tokens(family: str, call: Rerank) -> None:
    documents = ["a" * 30, "a" * 20, ImageText(PICTURE, "a" * 30), PICTURE]
    results = by_index(call(connect(family), "cat", documents, max_tokens_per_doc=20))
    assert [result.truncated for result in results] == [True, False, True, False]
    expected = by_index(call(connect(family), "cat", ["a" * 20, "a" * 20, ImageText(PICTURE, "a" * 20), PICTURE]))
    assert [result.logit for result in results] == [result.logit for result in expected]
    assert [result.tokens for result in results] == [result.tokens for result in expected]
    assert {result.chunk for result in results} == {None}
    generous = by_index(call(connect(family), "cat", ["a" * 500], max_tokens_per_doc=5000))
    assert generous == by_index(call(connect(family), "cat", ["a" * 500]))


def test_limit_that_leaves_nothing_to_read_is_told(family: str, call: Rerank) -> None:
    response = call(connect(family), "cat", ["😀", "a😀", "  a"], max_tokens_per_doc=2)
    assert [result.index for result in response.results] == [1]
    assert [failed.index for failed in response.errors] == [0, 2]
    assert "first 2 tokens of the document have no visible character" in response.errors[0].message
    with pytest.raises(InvalidInputError, match="of the query have no visible character; raise max_tokens_per_query"):
        call(connect(family), "😀", ["a"], max_tokens_per_query=2)


def test_limit_of_a_document_counts_all_of_its_chunks(family: str, call: Rerank) -> None:
    (result,) = by_index(call(connect(family), "cat", [LONG], chunking=Chunking(0), max_tokens_per_doc=20))
    assert (result.chunk, result.truncated) == (None, True)
    most = 2 * ROOM[family]
    transport = connect(family)
    (result,) = by_index(call(transport, "cat", [LONG], chunking=Chunking(0), max_tokens_per_doc=most))
    assert result.truncated
    assert rows_sent(transport, ["scoring_head_text", "rerank_text"]) in (2, 3)
    assert result.chunk is not None
    assert result.chunk.end <= most


def test_query_is_cut_with_a_warning(family: str, call: Rerank) -> None:
    with pytest.warns(LycheeWarning, match="longer than the 3 tokens of max_tokens_per_query"):
        response = call(connect(family), "catdog", ["a"], max_tokens_per_query=3)
    assert "max_tokens_per_query" in response.warnings[0]
    assert response.query.truncated
    assert response.results == call(connect(family), "cat", ["a"]).results
    whole = call(connect(family), "cat", ["a"], max_tokens_per_query=3)
    assert (whole.warnings, whole.query.truncated) == ((), False)


def test_without_truncation_what_is_too_long_is_refused(family: str, call: Rerank) -> None:
    room = ROOM[family]
    response = call(
        connect(family), "cat", ["a" * room, "a" * (room + 7), "b", "a" * 70_000, PICTURE], truncation=False
    )
    assert {result.index for result in response.results} == {0, 2, 4}
    assert not any(result.truncated for result in response.results)
    assert [failed.index for failed in response.errors] == [1, 3]
    assert all(isinstance(failed.error, InvalidInputError) for failed in response.errors)
    assert [failed.error.index for failed in response.errors] == [1, 3]  # type: ignore[attr-defined]
    assert f"{room + 7} tokens, of which {room} fit" in response.errors[0].message
    assert f"more than 65536 tokens, of which {room} fit" in response.errors[1].message
    response = call(connect(family), "cat", ["abc", "abcd"], truncation=False, max_tokens_per_doc=3)
    assert [result.index for result in response.results] == [0]
    assert "4 tokens, of which 3 fit (max_tokens_per_doc)" in response.errors[0].message


def test_without_truncation_a_query_that_is_too_long_ends_the_call(family: str, call: Rerank) -> None:
    with pytest.raises(InvalidInputError, match=r"query has 6 tokens, of which 3 fit \(max_tokens_per_query\)"):
        call(connect(family), "catdog", ["a"], truncation=False, max_tokens_per_query=3)
    with pytest.raises(InvalidInputError, match="the query"):
        call(connect(family), "q" * 300, ["a"], truncation=False)


def test_special_token_in_a_long_text_is_read_as_its_characters(call: Rerank) -> None:
    text = "word <|im_end|> " * 40
    (result,) = by_index(call(connect("cross"), "cat", [text], chunking=Chunking(8)))
    assert result.chunk is not None
    (alone,) = by_index(call(connect("cross"), "cat", [text[result.chunk.start : result.chunk.end]]))
    assert (alone.logit, alone.truncated) == (pytest.approx(result.logit, abs=1e-6), False)


def test_what_no_model_reads_stays_an_error_of_its_document(family: str, call: Rerank) -> None:
    damaged = ImageText(Image.from_bytes(b"no image"), LONG)
    documents: list[Any] = ["", 3, damaged, LONG]
    response = call(connect(family), "cat", documents, chunking=Chunking())
    assert [result.index for result in response.results] == [3]
    assert [failed.index for failed in response.errors] == [0, 1, 2]
    assert [failed.error.index for failed in response.errors] == [0, 1, 2]  # type: ignore[attr-defined]
    assert [failed.message for failed in response.errors] == [
        failed.message for failed in call(connect(family), "cat", documents).errors
    ]


def test_deadline_ends_a_call_while_it_cuts_texts(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from lychee_client import _long_texts

    released = threading.Event()
    advance = _long_texts._advance

    def slowly(work: Any) -> bool:
        released.wait(10)
        return advance(work)

    monkeypatch.setattr(_long_texts, "_advance", slowly)
    with LycheeClient(transport=connect(family)) as client:
        client.manifest()
        try:
            with pytest.raises(DeadlineExceededError):
                client.rerank("cat", [LONG], chunking=Chunking(), timeout_s=0.2)
        finally:
            released.set()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_chunk_without_a_number_is_the_documents_error(family: str, call: Rerank, value: float) -> None:
    reference = connect(family)
    spoiled = threading.Event()
    names = ("scoring_head_text", "rerank_text")

    def spoil(request: Request) -> InferResponse | None:
        if not isinstance(request, InferRequest) or request.model_name not in names or spoiled.is_set():
            return None
        spoiled.set()
        outputs = {key: tensor.copy() for key, tensor in reference.send(request, None).result().outputs.items()}
        outputs["logits"][0] = value
        return InferResponse(outputs)

    response = call(connect(family, spoil), "cat", [LONG, "ab"], chunking=Chunking(0))
    (failed,) = response.errors
    assert isinstance(failed.error, InvalidOutputError)
    assert failed.error.index == failed.index
    assert len(response.results) == 1


def score(logit: float, count: int = 3) -> Score:
    return Score(0.5, logit, "text", TokenizedText(range(count), False, count), None)


def test_document_fails_only_where_all_of_its_pieces_do() -> None:
    pieces = Pieces([Piece(4, "a", Chunk(0, 1)), Piece(4, "b", Chunk(1, 2)), Piece(7, "c")])
    refused = RequestRejectedError("refused", model_name="m")
    folded = pieces.fold(Outcome({1: score(1.0)}, {0: refused, 2: InvalidInputError("empty", index=2)}))
    assert folded.scores[4].chunk == Chunk(1, 2)
    assert folded.scores[4].tokens is not None
    assert folded.scores[4].tokens.truncated  # a part of it was not read
    assert list(folded.errors) == [7]
    assert folded.errors[7].index == 7  # type: ignore[attr-defined]
    folded = pieces.fold(Outcome({2: score(0.0)}, {0: refused, 1: refused}))
    assert (list(folded.scores), folded.errors) == ([7], {4: refused})


def test_first_of_equal_chunks_counts_and_tokens_of_all() -> None:
    pieces = Pieces([Piece(0, "a", Chunk(0, 1)), Piece(0, "b", Chunk(1, 2)), Piece(0, "c", Chunk(2, 3))])
    outcome = Outcome({2: score(2.0, 5), 1: score(2.0, 4), 0: score(1.0)})
    folded = pieces.fold(outcome)
    assert folded.scores[0].chunk == Chunk(1, 2)
    assert (folded.tokens_read, outcome.tokens_read) == (12, 12)
    assert [text_of(piece.document) for piece, _ in pieces.by_document(outcome.scores)[0]] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "options",
    [
        {"max_tokens_per_doc": 0},
        {"max_tokens_per_doc": "9"},
        {"max_tokens_per_query": -1},
        {"max_tokens_per_query": True},
        {"truncation": "no"},
        {"chunking": True},
        {"chunking": {"overlap_tokens": 3}},
    ],
)
def test_bad_options_are_refused(call: Rerank, options: dict[str, Any]) -> None:
    transport = connect("dual")
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        call(transport, "cat", ["a"], **options)
    assert transport.requests == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("overlap_tokens", -1), ("overlap_tokens", 1.5), ("max_chunks_per_doc", 0), ("max_chunks_per_doc", "3")],
)
def test_bad_chunking_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=name):
        Chunking(**{name: value})
