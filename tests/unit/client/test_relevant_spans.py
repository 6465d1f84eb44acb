"""The sentences of results that match the query, on the fake transports of both families and with both clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import PIL.Image
import pytest
from fakes.cross_encoder import PATCHES_MANIFEST
from fakes.dual_encoder import MANIFEST, FakeTransport
from lychee_client import (
    AsyncLycheeClient,
    CacheUse,
    Chunking,
    ConfigurationError,
    DeadlineExceededError,
    Image,
    ImageText,
    LycheeClient,
    RelevantSpans,
    RequestRejectedError,
    RerankResponse,
    RerankResult,
    Text,
    _span_search,
)
from lychee_client._span_search import MAX_PER_CALL, MAX_PER_DOCUMENT
from lychee_client.transports.base import InferRequest, Request

DUAL: dict[str, Any] = {}
FAMILIES = pytest.mark.parametrize("manifest", [DUAL, PATCHES_MANIFEST], ids=["dual", "cross"])
ALL = RelevantSpans(threshold=0)
PHOTO = Image.from_pil(PIL.Image.new("RGB", (60, 60), (9, 9, 200)))
STORY = "  Zzz zzz zzz. 小猫喜欢晒太阳。它们怕冷！👨\u200d👩\u200d👧 qqqq!\n\nCafe\u0301 zz.  "
SENTENCES = ["Zzz zzz zzz.", "小猫喜欢晒太阳。", "它们怕冷！", "👨\u200d👩\u200d👧 qqqq!", "Cafe\u0301 zz."]


pytestmark = pytest.mark.filterwarnings("ignore::lychee_client.LycheeWarning")


def ask(
    documents: Sequence[Any],
    spans: RelevantSpans | None = ALL,
    transport: FakeTransport | None = None,
    query: Any = "qqqq",
    manifest: dict[str, Any] = DUAL,
    cache: Any = None,
    **options: Any,
) -> RerankResponse:
    with LycheeClient(transport=transport or FakeTransport(manifest=manifest), embedding_cache=cache) as client:
        return client.rerank(query, documents, relevant_spans=spans, **options)


def found(result: RerankResult, text: str) -> list[str]:
    assert result.relevant_spans is not None
    return [text[span.start : span.end] for span in result.relevant_spans]


def requests_to(transport: FakeTransport, model_name: str) -> list[InferRequest]:
    requests = [request for request in transport.requests if isinstance(request, InferRequest)]
    return [request for request in requests if request.model_name == model_name]


@FAMILIES
@pytest.mark.parametrize("wrap", [str, Text, lambda text: ImageText(PHOTO, text)], ids=["str", "text", "image text"])
def test_every_sentence_is_scored_as_a_document_of_its_own(
    manifest: dict[str, Any], wrap: Callable[[str], Any]
) -> None:
    (result,) = ask([wrap(STORY)], manifest=manifest).results
    alone = {SENTENCES[each.index]: each for each in ask(SENTENCES, None, manifest=manifest).results}
    assert sorted(found(result, STORY)) == sorted(SENTENCES)
    assert result.spans_truncated is False
    for span, sentence in zip(result.relevant_spans or (), found(result, STORY), strict=True):
        assert span.score == pytest.approx(alone[sentence].relevance_score, abs=1e-6)
        assert span.logit == pytest.approx(alone[sentence].logit, abs=1e-5)
    logits = [span.logit for span in result.relevant_spans or ()]
    assert logits == sorted(logits, reverse=True)


@FAMILIES
def test_threshold_and_number_select_the_best(manifest: dict[str, Any]) -> None:
    (result,) = ask([STORY], manifest=manifest).results
    everything = result.relevant_spans or ()
    scores = [span.score for span in everything]
    assert len(set(scores)) == len(scores) == 5
    for threshold, most, expected in ((scores[2], None, 3), (scores[2], 2, 2), (0, 9, 5), (1, None, 0)):
        (chosen,) = ask([STORY], RelevantSpans(threshold=threshold, max_spans=most), manifest=manifest).results
        assert chosen.relevant_spans == everything[:expected]


def test_equal_sentences_keep_their_order() -> None:
    (result,) = ask(["Same. Other one. Same."]).results
    starts = [span.start for span in result.relevant_spans or () if span.end - span.start == 5]
    assert starts == [0, 17]


@FAMILIES
def test_only_results_with_a_text_have_spans(manifest: dict[str, Any]) -> None:
    response = ask(["aaa. bbb.", PHOTO, "", ImageText(PHOTO, "ccc.")], manifest=manifest)
    spans = {result.index: result.relevant_spans for result in response.results}
    assert {index: None if each is None else len(each) for index, each in spans.items()} == {0: 2, 1: None, 3: 1}
    assert next(result for result in response.results if result.index == 1).spans_truncated is None
    assert [error.index for error in response.errors] == [2]


@FAMILIES
@pytest.mark.parametrize("spans", [None, RelevantSpans("disabled")])
def test_nothing_more_is_sent_where_no_spans_are_asked_for(
    manifest: dict[str, Any], spans: RelevantSpans | None
) -> None:
    transport, plain = FakeTransport(manifest=manifest), FakeTransport(manifest=manifest)
    (result,) = ask([STORY], spans, transport).results
    with LycheeClient(transport=plain, embedding_cache=None) as client:
        assert client.rerank("qqqq", [STORY]).results == (result,)
    assert result.relevant_spans is None
    for model in ("text_encoder", "scoring_head_text", "rerank_text"):
        assert len(requests_to(transport, model)) == len(requests_to(plain, model))


@FAMILIES
@pytest.mark.parametrize("selection", [{"top_n": 1}, {"score_threshold": 1, "min_results": 1}])
def test_only_what_is_selected_is_searched(manifest: dict[str, Any], selection: dict[str, Any]) -> None:
    def rows(options: dict[str, Any], spans: RelevantSpans | None) -> int:
        transport = FakeTransport(manifest=manifest)
        ask(["aaa. bbb. ccc.", "ddd. eee. fff."], spans, transport, **options)
        model = "text_encoder" if manifest is DUAL else "rerank_text"
        return sum(request.rows for request in requests_to(transport, model))

    base = rows({}, None)
    assert rows(selection, ALL) - base == 3
    assert rows(selection | {"keep_unselected": True}, ALL) - base == 3
    assert rows({}, ALL) - base == 6


@FAMILIES
def test_what_was_left_out_is_kept_if_asked_for(manifest: dict[str, Any]) -> None:
    documents = ["aaa. bbb.", "ccc. ddd.", "", "eeee."]
    everything = ask(documents, None, manifest=manifest).results
    response = ask(documents, manifest=manifest, top_n=1, keep_unselected=True)
    assert [result.index for result in response.results] == [everything[0].index]
    assert response.results[0].relevant_spans
    assert response.unselected == everything[1:]
    assert ask(documents, manifest=manifest, top_n=1).unselected == ()


@pytest.mark.parametrize("query", ["qqqq", PHOTO, ImageText(PHOTO, "qqqq")], ids=["text", "image", "both"])
def test_a_dual_encoders_query_is_encoded_once(query: Any) -> None:
    transport, plain = FakeTransport(), FakeTransport()
    (result,) = ask([STORY], ALL, transport, query).results
    ask([STORY], None, plain, query)
    rows = [sum(request.rows for request in requests_to(each, "text_encoder")) for each in (transport, plain)]
    assert rows[0] - rows[1] == len(SENTENCES)
    assert len(requests_to(transport, "vision_encoder")) == len(requests_to(plain, "vision_encoder"))
    alone = {SENTENCES[each.index]: each.logit for each in ask(SENTENCES, None, query=query).results}
    for span, sentence in zip(result.relevant_spans or (), found(result, STORY), strict=True):
        assert span.logit == pytest.approx(alone[sentence], abs=1e-5)


def test_what_the_cache_has_is_not_computed_again() -> None:
    cache: dict[bytes, bytes] = {}

    class Cache:
        def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
            return [cache.get(key) for key in keys]

        def put_many(self, entries: dict[bytes, bytes]) -> None:
            cache.update(entries)

    for manifest in (DUAL, PATCHES_MANIFEST):
        first = ask([STORY], manifest=manifest, cache=Cache())
        again = ask([STORY], manifest=manifest, cache=Cache())
        assert first.embedding_cache == CacheUse(0, 6)
        assert again.embedding_cache == CacheUse(6, 0)
        assert again.results == first.results


@FAMILIES
def test_a_sentence_that_the_model_does_not_read_to_its_end_is_halved(manifest: dict[str, Any]) -> None:
    text = "Short. " + " ".join(f"word{number}" for number in range(60)) + "."
    (result,) = ask([text], manifest=manifest).results
    pieces = sorted((span.start, span.end) for span in result.relevant_spans or ())
    assert len(pieces) > 2
    assert " ".join(text[start:end] for start, end in pieces) == text
    alone = ask([text[start:end] for start, end in pieces], None, manifest=manifest).results
    assert not any(each.truncated for each in alone)


def test_halving_ends_where_the_model_reads_next_to_nothing() -> None:
    manifest = {"text": {**MANIFEST["text"], "max_tokens": 16, "buckets": [16]}}
    (result,) = ask(["word " * 100], manifest=manifest).results
    assert 1 < len(result.relevant_spans or ()) <= 16


@FAMILIES
def test_too_many_sentences_are_told(manifest: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_span_search, "MAX_PER_DOCUMENT", 3)
    monkeypatch.setattr(_span_search, "MAX_PER_CALL", 5)
    documents = ["qqq. rrr. sss.", "qqq. rrr. sss. ttt.", "qqq."]
    response = ask(documents, manifest=manifest)
    results = {result.index: result for result in response.results}
    assert sum(len(result.relevant_spans or ()) for result in results.values()) == 5
    assert results[1].spans_truncated
    (warning,) = response.warnings
    truncated = sum(bool(result.spans_truncated) for result in results.values())
    assert f"{truncated} of the results have more sentences" in warning
    assert "3 per document and 5 per call" in warning
    assert ask(["qqq. rrr. sss."], manifest=manifest).warnings == ()
    assert (MAX_PER_DOCUMENT, MAX_PER_CALL) == (256, 2048)


def test_a_text_longer_than_is_read_at_all_is_told() -> None:
    response = ask([f"aaaa. {'b' * 70_000}"], RelevantSpans(threshold=0, max_spans=1))
    assert response.results[0].spans_truncated
    assert "65536 characters" in response.warnings[0]


def test_a_sentence_that_cannot_be_scored_costs_the_others_nothing() -> None:
    def intercept(request: Request) -> None:
        if isinstance(request, InferRequest) and request.model_name == "text_encoder":
            lengths = request.inputs["attention_mask"].sum(axis=1)
            if len(lengths) > 1 or lengths[0] == len("passage: bad.") + 2:
                raise RequestRejectedError("refused", model_name="text_encoder")

    response = ask(["good one. bad. fine, too."], transport=FakeTransport(intercept))
    assert sorted(found(response.results[0], "good one. bad. fine, too.")) == ["fine, too.", "good one."]
    assert response.warnings == (
        "1 sentences could not be scored (RequestRejectedError), and so are no relevant spans",
    )


@FAMILIES
def test_sentences_share_the_deadline_of_the_call(manifest: dict[str, Any]) -> None:
    calls: list[float | None] = []

    class Slow(FakeTransport):
        def send(self, request: Request, timeout_s: float | None) -> Any:
            calls.append(timeout_s)
            return super().send(request, timeout_s)

    ask([STORY], transport=Slow(manifest=manifest), timeout_s=50.0)
    assert all(timeout_s is not None for timeout_s in calls)
    assert calls == sorted(calls, key=lambda timeout_s: -(timeout_s or 0))
    with pytest.raises(DeadlineExceededError):
        ask([STORY], manifest=manifest, timeout_s=1e-9)


@FAMILIES
def test_a_bulk_call_stays_patient(manifest: dict[str, Any]) -> None:
    transport = FakeTransport(manifest=manifest)
    (result,) = ask([STORY], transport=transport, priority="bulk").results
    assert result == ask([STORY], manifest=manifest).results[0]


@FAMILIES
def test_what_was_read_is_searched_and_positions_are_those_in_the_whole_text(manifest: dict[str, Any]) -> None:
    text = "Aaaa. " * 40 + "Qqqq qqqq. " + "Bbbb. " * 60
    (whole,) = ask([text], RelevantSpans(threshold=0, max_spans=None), manifest=manifest).results
    (result,) = ask([text], manifest=manifest, chunking=Chunking(max_chunks_per_doc=None)).results
    assert result.chunk is not None
    sentences = found(result, text)
    assert 0 < len(sentences) < len(found(whole, text))
    for span in result.relevant_spans or ():
        assert result.chunk.start <= span.start < span.end <= result.chunk.end
    assert {"Aaaa.", "Bbbb.", "Qqqq qqqq."} & set(sentences)
    (cut,) = ask([text], manifest=manifest, max_tokens_per_doc=12).results
    assert cut.truncated
    assert max(span.end for span in cut.relevant_spans or ()) <= 12  # a token is a byte here


def test_timings_say_what_the_spans_took() -> None:
    plain, searched = ask([STORY], None).timings, ask([STORY]).timings
    assert plain.find_spans_ms == 0 < searched.find_spans_ms < searched.total_ms


def test_the_asynchronous_client_finds_the_same() -> None:
    async def call() -> RerankResponse:
        async with AsyncLycheeClient(transport=FakeTransport(), embedding_cache=None) as client:
            return await client.rerank("qqqq", [STORY, PHOTO], relevant_spans=ALL)

    assert asyncio.run(call()).results == ask([STORY, PHOTO]).results


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mode": "on"}, "relevant_spans.mode is 'on'; expected one of enabled, disabled"),
        ({"threshold": 1.5}, "relevant_spans.threshold is 1.5; expected 0 to 1"),
        ({"threshold": float("nan")}, "relevant_spans.threshold is nan; expected 0 to 1"),
        ({"max_spans": 0}, "relevant_spans.max_spans is 0; expected at least 1, or None for all"),
    ],
)
def test_options_are_checked(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RelevantSpans(**values)
    assert str(caught.value) == message


@pytest.mark.parametrize("value", [True, {"mode": "enabled"}, "enabled"])
def test_another_type_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"relevant_spans is a {type(value).__name__}; expected a RelevantSpa"):
        ask(["a"], value)


def test_defaults_are_those_of_cohere() -> None:
    assert RelevantSpans() == RelevantSpans("enabled", threshold=0.1, max_spans=None)
