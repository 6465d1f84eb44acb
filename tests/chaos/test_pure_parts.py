"""Pure parts under values that nobody thought of."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from fakes.dual_encoder import MANIFEST, make_tokenizer_json
from hypothesis import given, settings
from hypothesis import strategies as st
from lychee_client import InvalidInputError, Policy, decide
from lychee_client._pipelines.scoring import Outcome, Score
from lychee_client.manifest.manifest import TextSpec
from lychee_client.preprocessing.text import TextProcessor, check_text, find_bucket, pad_texts
from lychee_client.ranking import rank, select
from lychee_server.gateway.documents import read_parts
from lychee_server.gateway.image_urls import ImageFetcher
from lychee_server.gateway.request_check import is_loopback

settings.register_profile("chaos", deadline=None, derandomize=True, database=None, max_examples=200)
settings.load_profile("chaos")

SPEC: Final = TextSpec(
    query_prefix="query: ",
    document_prefix="passage: ",
    pad_token_id=1,
    max_tokens=MANIFEST["text"]["max_tokens"],
    buckets=tuple(MANIFEST["text"]["buckets"]),
)
POLICY: Final = Policy("test", 0.7, 0.3)
LOGITS: Final = st.lists(st.floats(-40, 40, width=32), max_size=40)
UNIT: Final = st.floats(0, 1)
KEYS: Final = ["text", "image", "image_url", "content", "type", "x"]
JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=8,
)


def make_outcome(logits: list[float]) -> Outcome:
    """Return scores as a model in float32 makes them."""
    scores = {}
    for index, logit in enumerate(logits):
        score = float(np.float32(1 / (1 + math.exp(-logit))))
        scores[index] = Score(score, logit, "text", None, None)
    return Outcome(scores=scores)


@given(LOGITS)
def test_a_ranking_is_every_document_once_by_logit_and_then_by_index(logits: list[float]) -> None:
    results, errors = rank(make_outcome(logits), POLICY)
    assert errors == ()
    assert [result.index for result in results] == sorted(range(len(logits)), key=lambda index: (-logits[index], index))
    scores = [result.relevance_score for result in results]
    assert scores == sorted(scores, reverse=True)


@given(LOGITS, st.none() | st.integers(1, 50), st.none() | UNIT, st.integers(0, 50))
def test_a_selection_is_the_beginning_of_the_ranking(
    logits: list[float], top_n: int | None, threshold: float | None, min_results: int
) -> None:
    outcome = make_outcome(logits)
    everything, _ = rank(outcome, POLICY)
    results = select(everything, top_n=top_n, score_threshold=threshold, min_results=min_results)
    assert [result.index for result in results] == [result.index for result in everything[: len(results)]]
    assert len(results) <= (top_n or len(logits))
    above = sum(threshold is None or result.relevance_score >= threshold for result in everything)
    assert len(results) == min(top_n or len(logits), max(above, min(min_results, len(logits))))
    assert sum(result.below_threshold for result in results) == max(0, len(results) - above)


@given(UNIT, UNIT, UNIT, UNIT)
def test_a_higher_score_never_decides_worse(accept: float, review: float, one: float, other: float) -> None:
    policy = Policy("test", max(accept, review), min(accept, review))
    order = ["reject", "review", "accept"]
    low, high = sorted((one, other))
    assert order.index(decide(low, policy)) <= order.index(decide(high, policy))


@given(st.integers(1, 64))
def test_a_bucket_is_the_smallest_that_holds(length: int) -> None:
    bucket = find_bucket(length, SPEC)
    assert bucket >= length
    assert all(smaller < length for smaller in SPEC.buckets if smaller < bucket)


PROCESSOR: Final = TextProcessor(make_tokenizer_json(), SPEC)


@given(st.lists(st.text(max_size=200), min_size=1, max_size=8))
def test_texts_of_any_length_fit_and_pad_without_a_trace(texts: list[str]) -> None:
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    tokenized = PROCESSOR.tokenize_documents(texts)
    for text, tokens in zip(texts, tokenized, strict=True):
        whole = len((SPEC.document_prefix + text).encode()) + 2  # the tokenizer has one token per byte
        assert len(tokens.ids) == min(whole, SPEC.max_tokens)
        assert tokens.truncated == (whole > SPEC.max_tokens)
    tensors = pad_texts(tokenized, SPEC)
    assert tensors["input_ids"].shape[1] in SPEC.buckets
    for row, tokens in enumerate(tokenized):
        mask = tensors["attention_mask"][row]
        assert mask.sum() == len(tokens.ids)
        assert tensors["input_ids"][row][mask == 1].tolist() == list(tokens.ids)


@given(st.text() | st.text("\u200b\u200d\ufeff\u2060 \n\u00ad\ufe0f"))
def test_a_text_is_taken_or_refused_in_our_words(text: str) -> None:
    try:
        check_text(text)
    except InvalidInputError:
        assert not text.strip() or not text.strip("\u200b\u200d\ufeff\u2060 \n\u00ad\ufe0f") or not text.isprintable()
    else:
        assert text.strip()


FETCHER: Final = ImageFetcher(["images.example.org", "*.wild.example"])
HOSTS: Final = st.text("abc.-_%:@[]/\\?#*x0123456789\u00e9\u3002 \x00", max_size=80) | st.sampled_from(
    ["images.example.org", "wild.example", "a.wild.example", "xn--a.wild.example", "evil.org"]
)


@given(
    st.sampled_from(["http://", "https://", "HTTP://", "ftp://", "//", ""]),
    HOSTS,
    st.sampled_from(["", ".wild.example", "@images.example.org", ".", ":80", "#.wild.example", "/.wild.example"]),
    st.text(max_size=20),
)
def test_only_allowed_hosts_are_ever_asked(scheme: str, host: str, end: str, path: str) -> None:
    try:
        url = FETCHER._check_url(f"{scheme}{host}{end}/{path}")
    except InvalidInputError:
        return
    assert url.raw_host is not None
    assert url.raw_host == "images.example.org" or url.raw_host.endswith(".wild.example")
    assert all(0 < len(label) < 64 for label in url.raw_host.split("."))
    assert url.host
    assert (url.raw_user, url.raw_password, url.raw_fragment) == (None, None, "")


@given(JSON)
def test_a_document_of_any_shape_has_parts_or_is_refused(value: object) -> None:
    try:
        parts = read_parts(value)
    except InvalidInputError:
        return
    assert parts.text is not None or parts.images


@given(st.text(max_size=60))
def test_no_other_name_is_the_loopback(name: str) -> None:
    if is_loopback(name):
        assert name.rstrip(".").endswith("localhost") or name.startswith(("127.", "::"))
