"""The sentences of ranked documents that match the query: scored like documents of their own, after the ranking."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Final

from lychee_client._errors import LycheeError
from lychee_client._operations import in_thread
from lychee_client._pipelines.lanes import Lane
from lychee_client._pipelines.scoring import Outcome, Pipeline
from lychee_client.preprocessing.text import MAX_CHARACTERS, is_visible
from lychee_client.sentences import find_cut, find_sentences
from lychee_client.spans import RelevantSpan, RelevantSpans
from lychee_client.types import CacheUse, Input, RerankResult, text_of

MAX_PER_DOCUMENT: Final = 256
MAX_PER_CALL: Final = 2048
# A sentence that the model does not read to its end is halved so often at most: 512 characters become 32.
MAX_HALVINGS: Final = 4


@dataclass(slots=True)
class Passage:
    """The text of a result that is searched.

    Attributes:
        text: The text.
        offset: Where it begins in the document's text.
        sentences: Where its sentences begin and end; those beyond the limits are left out.
        truncated: Whether some are left out.
        spans: The sentences that were scored, at their positions in the document's text.
    """

    text: str
    offset: int = 0
    sentences: list[tuple[int, int]] = field(default_factory=list)
    truncated: bool = False
    spans: list[RelevantSpan] = field(default_factory=list)

    def choose(self, options: RelevantSpans) -> tuple[RelevantSpan, ...]:
        """Return what was asked for, best first."""
        ordered = sorted(self.spans, key=lambda span: (-span.logit, span.start))
        return tuple(span for span in ordered if span.score >= options.threshold)[: options.max_spans]


@dataclass(frozen=True, slots=True)
class SpanSearch:
    """How sentences are scored: as the documents of the call were.

    Attributes:
        pipeline: The model's pipeline.
        query: The query of the call.
        instruction: The instruction that the model reads.
        lane: How much of the server the call may take.
        outcome: What became of the documents; takes the time and the cache's use of the sentences too.
    """

    pipeline: Pipeline
    query: Input
    instruction: str | None
    lane: Lane
    outcome: Outcome

    async def add_spans(
        self, results: Sequence[RerankResult], documents: Sequence[Input], options: RelevantSpans
    ) -> tuple[tuple[RerankResult, ...], list[str]]:
        """Return the results with their spans, and warnings.

        Args:
            results: The results that the caller gets; others cost nothing.
            documents: What was read of each result's document: its best chunk, where it has chunks.
            options: Which spans are asked for.
        """
        began_at_s = time.perf_counter()
        passages = [make_passage(result, document) for result, document in zip(results, documents, strict=True)]
        texts = [passage for passage in passages if passage is not None]
        await in_thread(partial(find_all_sentences, texts))
        failures = await self._score(texts)
        elapsed_ms = 1e3 * (time.perf_counter() - began_at_s)
        timings = self.outcome.timings
        self.outcome.timings = replace(timings, total_ms=timings.total_ms + elapsed_ms, find_spans_ms=elapsed_ms)
        warnings = []
        truncated = sum(passage.truncated for passage in texts)
        if truncated:
            warnings.append(
                f"{truncated} of the results have more sentences than are searched for relevant spans, "
                f"{MAX_PER_DOCUMENT} per document and {MAX_PER_CALL} per call, or more than {MAX_CHARACTERS} "
                "characters: send shorter documents, or lower top_n"
            )
        if failures:
            kinds = ", ".join(sorted({type(error).__name__ for error in failures}))
            warnings.append(f"{len(failures)} sentences could not be scored ({kinds}), and so are no relevant spans")
        found = zip(results, passages, strict=True)
        return tuple(_add(result, passage, options) for result, passage in found), warnings

    async def _score(self, passages: Sequence[Passage]) -> list[LycheeError]:
        """Score all sentences; return what is wrong with those that cannot be."""
        failures: list[LycheeError] = []
        pending = [(passage, start, end) for passage in passages for start, end in passage.sentences]
        halvings = 0
        while pending:
            texts = [passage.text[start:end] for passage, start, end in pending]
            scored = await self.pipeline.rerank(self.query, texts, self.instruction, self.lane, self.outcome)
            self.outcome.embedding_cache = _add_use(self.outcome.embedding_cache, scored.embedding_cache)
            failures += (error for _, error in sorted(scored.errors.items()))
            halves = []
            for index, score in sorted(scored.scores.items()):
                passage, start, end = pending[index]
                is_cut = score.tokens is not None and score.tokens.truncated
                if is_cut and halvings < MAX_HALVINGS and end - start > 2:
                    halves += _halve(passage, start, end)
                else:
                    place = start + passage.offset, end + passage.offset
                    passage.spans.append(RelevantSpan(*place, score.relevance_score, score.logit))
            pending = halves
            halvings += 1
        return failures


def make_passage(result: RerankResult, document: Input) -> Passage | None:
    """Return what is searched of what was read for a result, or None if that has no text."""
    text = text_of(document)
    return None if text is None else Passage(text, 0 if result.chunk is None else result.chunk.start)


def find_all_sentences(passages: Sequence[Passage]) -> None:
    """Note the sentences of each passage, up to the limits; the first passages come first."""
    left = MAX_PER_CALL
    for passage in passages:
        most = min(left, MAX_PER_DOCUMENT)
        found = list(islice(find_sentences(passage.text[:MAX_CHARACTERS]), most + 1))
        passage.sentences = found[:most]
        passage.truncated = len(found) > most or len(passage.text) > MAX_CHARACTERS
        left -= len(passage.sentences)


def _halve(passage: Passage, start: int, end: int) -> list[tuple[Passage, int, int]]:
    """Return the places of the two halves of a sentence, without the white space between them."""
    text = passage.text[start:end]
    cut = find_cut(text, max(2, len(text) // 2))
    halves = [(start, start + len(text[:cut].rstrip())), (end - len(text[cut:].lstrip()), end)]
    return [(passage, first, last) for first, last in halves if is_visible(passage.text[first:last])]


def _add(result: RerankResult, passage: Passage | None, options: RelevantSpans) -> RerankResult:
    if passage is None:
        return result
    return replace(result, relevant_spans=passage.choose(options), spans_truncated=passage.truncated)


def _add_use(one: CacheUse | None, other: CacheUse | None) -> CacheUse | None:
    if one is None or other is None:
        return one or other
    return CacheUse(one.hits + other.hits, one.misses + other.misses)
