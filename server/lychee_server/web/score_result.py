"""One pair's score as HTML."""

from __future__ import annotations

import html
from typing import Final

from lychee_client import Policy, RerankResponse, RerankResult

from lychee_server.gateway.service import ServiceAnswer
from lychee_server.web.decisions import render_badge, render_bar, thresholds_attributes
from lychee_server.web.language import Words

WHY_KEYS: Final = ("score.why_both", "score.why_text", "score.why_image")


def render_empty(words: Words) -> str:
    """Return what stands there before the first score."""
    return f'<div class="empty"><p>{words.both("score.empty")}</p></div>'


def render_result(words: Words, answer: ServiceAnswer, policy: Policy) -> str:
    """Return the score with its decision, why it is so, and what the model read.

    Args:
        words: Of the page.
        answer: Document 0 is the pair; 1 and 2, where there, its text alone and its image alone.
        policy: Whose thresholds decide.
    """
    response = answer.response
    by_index = {result.index: result for result in response.results}
    pair = by_index[0]
    return (
        f'<section class="decided score-card" {thresholds_attributes(policy)}>'
        f'<div class="headline" data-score="{pair.relevance_score!r}" data-decision="{pair.decision}">'
        f'<div class="figure" aria-live="polite"><span class="sr-only">{words.both("score.score")}</span>'
        f'<output class="number">{pair.relevance_score:.3f}</output>{render_badge(words)}</div>'
        f"{render_bar(pair.relevance_score)}"
        f'<p class="timing">{_render_timing(words, answer)}</p></div>'
        f"{_render_why(words, by_index, response)}{_render_report(words, pair, response)}</section>"
    )


def _render_timing(words: Words, answer: ServiceAnswer) -> str:
    timings = answer.response.timings
    return words.both(
        "score.timing",
        total=f"{timings.total_ms:.0f}",
        preprocess=f"{timings.preprocess_ms:.0f}",
        query=f"{timings.encode_query_ms:.0f}",
        documents=f"{timings.score_documents_ms:.0f}",
    )


def _render_why(words: Words, by_index: dict[int, RerankResult], response: RerankResponse) -> str:
    if len(by_index) + len(response.errors) < len(WHY_KEYS):
        return ""
    rows = []
    for index, key in enumerate(WHY_KEYS):
        result = by_index.get(index)
        label = f'<th scope="row">{words.both(key)}</th>'
        if result is None:
            rows.append(f'<tr>{label}<td colspan="2">{words.both("score.why_impossible")}</td></tr>')
        else:
            rows.append(
                f'<tr data-score="{result.relevance_score!r}" data-decision="{result.decision}">{label}'
                f"<td>{render_bar(result.relevance_score)}</td>"
                f'<td class="number">{result.relevance_score:.3f}</td></tr>'
            )
    verdict = ""
    if 1 in by_index and 2 in by_index:
        text, image = by_index[1].relevance_score, by_index[2].relevance_score
        key = "score.why_text_more" if text >= image else "score.why_image_more"
        verdict = f"<p>{words.both(key)}</p>"
    table = f'<table class="why">{"".join(rows)}</table>'
    return f'<div class="block"><h3>{words.both("score.why")}</h3>{table}{verdict}</div>'


def _render_report(words: Words, pair: RerankResult, response: RerankResponse) -> str:
    facts: list[tuple[str, str]] = [("page.modality", words.both(f"page.modality_{pair.modality}"))]
    if pair.tokens is not None:
        facts.append(("page.tokens", html.escape(str(pair.tokens))))
        facts.append(("page.truncated", words.both("page.yes_truncated" if pair.truncated else "page.no")))
    if pair.image_size is not None and pair.image_resized_to is not None:
        facts.append(("page.image_size", _render_sizes(pair.image_size, pair.image_resized_to)))
    if pair.image_tokens is not None:
        facts.append(("page.image_tokens", str(pair.image_tokens)))
    facts.append(("page.logit", f"{pair.logit:.4f}"))
    if response.model is not None:
        facts.append(("page.model", html.escape(f"{response.model.model_id} {response.model.revision[:12]}")))
    if response.embedding_cache is not None:
        cache = response.embedding_cache
        facts.append(("page.cache", words.both("page.cache_use", hits=cache.hits, misses=cache.misses)))
    rows = "".join(f"<div><dt>{words.both(key)}</dt><dd>{value}</dd></div>" for key, value in facts)
    return (
        f'<div class="block"><h3>{words.both("score.report")}</h3><dl class="facts">{rows}</dl>'
        f"{render_warnings(words, response)}</div>"
    )


def _render_sizes(size: tuple[int, int], resized_to: tuple[int, int]) -> str:
    return f"{size[0]} × {size[1]} → {resized_to[0]} × {resized_to[1]}"


def render_warnings(words: Words, response: RerankResponse) -> str:
    """Return the warnings of a response as a list, or nothing."""
    if not response.warnings:
        return ""
    items = "".join(f'<li lang="en">{html.escape(warning)}</li>' for warning in response.warnings)
    return f'<div class="warnings"><strong>{words.both("page.warnings")}</strong><ul>{items}</ul></div>'
