"""A ranking as HTML: summary, downloads, one row for each document, and what could not be ranked."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence

from lychee_client import DocumentError, Policy, RerankResult

from lychee_server.gateway.service import ServiceAnswer
from lychee_server.web.decisions import SYMBOLS, render_badge, render_bar, thresholds_attributes
from lychee_server.web.inputs import Item, Loaded
from lychee_server.web.language import Words
from lychee_server.web.score_result import render_warnings

MAX_SHOWN_CHARACTERS = 600


def render_empty(words: Words) -> str:
    """Return what stands there before the first ranking."""
    return f'<div class="empty"><p>{words.both("rerank.empty")}</p></div>'


def render_ranking(
    words: Words, answer: ServiceAnswer, query: Loaded, documents: Sequence[Loaded], policy: Policy
) -> str:
    """Return a ranking. The data of the downloads is in the attribute `data-results`, as JSON.

    Args:
        words: Of the page.
        answer: Of the service.
        query: What was asked.
        documents: In the order of the call.
        policy: Whose thresholds decide at first.
    """
    response = answer.response
    badge = render_badge(words)
    rows = [
        _render_row(words, rank, result, documents[result.index], badge)
        for rank, result in enumerate(response.results, start=1)
    ]
    errors = [_render_error(words, error, documents[error.index]) for error in response.errors]
    data = html.escape(json.dumps(_to_data(answer, query, documents), ensure_ascii=False, separators=(",", ":")))
    failed = (
        f'<section class="failed"><h3>{words.both("rerank.errors", count=len(errors))}</h3><ul>{"".join(errors)}</ul>'
        "</section>"
        if errors
        else ""
    )
    ranking = f'<ol class="ranking">{"".join(rows)}</ol>' if rows else ""
    return (
        f'<section class="decided" {thresholds_attributes(policy)} data-results="{data}">'
        f"{_render_summary(words, answer, len(documents))}"
        f"{render_warnings(words, response)}{ranking}{failed}</section>"
    )


def _render_summary(words: Words, answer: ServiceAnswer, count: int) -> str:
    response = answer.response
    counts = "".join(
        f'<span class="count badge-{decision}"><span aria-hidden="true">{symbol}</span> '
        f'<b data-count="{decision}">{sum(result.decision == decision for result in response.results)}</b> '
        f"{words.both(f'page.{decision}')}</span>"
        for decision, symbol in SYMBOLS.items()
    )
    cache = response.embedding_cache
    used = "" if cache is None else " · " + words.both("page.cache_use", hits=cache.hits, misses=cache.misses)
    timing = words.both(
        "rerank.timing", shown=len(response.results), count=count, total=f"{response.timings.total_ms:.0f}"
    )
    return (
        f'<div class="summary"><h2 tabindex="-1">{words.both("rerank.results")}</h2>'
        f'<p class="counts" role="status" aria-live="polite" aria-atomic="true">{counts}</p>'
        f'<p class="timing">{timing}{used}</p>'
        '<div class="tools">'
        f'<label><input type="checkbox" class="only-kept"> {words.both("rerank.only_kept")}</label>'
        f'<button type="button" class="tool" data-download="csv">{words.both("rerank.download_csv")}</button>'
        f'<button type="button" class="tool" data-download="json">{words.both("rerank.download_json")}</button>'
        "</div></div>"
    )


def _render_row(words: Words, rank: int, result: RerankResult, document: Loaded, badge: str) -> str:
    notes = [words.both(f"page.modality_{result.modality}"), words.both("rerank.number", number=result.index + 1)]
    if result.truncated:
        notes.append(f"<strong>{words.both('page.yes_truncated')}</strong>")
    picture = (
        '<span class="no-picture" aria-hidden="true">¶</span>'
        if document.thumbnail is None
        else f'<img src="{document.thumbnail}" alt="{_name(document.item)}" decoding="async">'
    )
    return (
        f'<li data-score="{result.relevance_score!r}" data-decision="{result.decision}">'
        f'<span class="rank">{rank}</span><span class="picture">{picture}</span>'
        f'<div class="content">{_render_content(document.item)}<p class="notes">{" · ".join(notes)}</p></div>'
        f'<div class="verdict"><span class="number">{result.relevance_score:.3f}</span>{badge}</div>'
        f"{render_bar(result.relevance_score)}</li>"
    )


def _render_content(item: Item) -> str:
    text = "" if item.text is None else f'<p class="text" dir="auto">{html.escape(_shorten(item.text))}</p>'
    name = "" if item.image is None else f'<p class="file" dir="auto">{_name(item)}</p>'
    return name + text


def _render_error(words: Words, error: DocumentError, document: Loaded) -> str:
    is_broken = document.item.image is not None and document.thumbnail is None
    reason = words.both("rerank.error_image" if is_broken else "rerank.error_document")
    return (
        f"<li><p>{words.both('rerank.number', number=error.index + 1)}</p>{_render_content(document.item)}"
        f'<p class="reason">{reason}</p><p class="detail" lang="en">{html.escape(error.message)}</p></li>'
    )


def _name(item: Item) -> str:
    return "" if item.image is None else html.escape(item.image.name)


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_CHARACTERS else text[:MAX_SHOWN_CHARACTERS] + " …"


def _to_data(answer: ServiceAnswer, query: Loaded, documents: Sequence[Loaded]) -> dict[str, object]:
    """Return what the downloads are made of."""
    response = answer.response
    return {
        "id": answer.request_id,
        "model": None if response.model is None else f"{response.model.model_id}@{response.model.revision}",
        "query": _describe(query.item),
        "instruction": response.instruction,
        "warnings": list(response.warnings),
        "results": [
            {
                "rank": rank,
                "index": result.index,
                "relevance_score": result.relevance_score,
                "logit": result.logit,
                "modality": result.modality,
                "tokens": result.tokens,
                "truncated": result.truncated,
                **_describe(documents[result.index].item),
            }
            for rank, result in enumerate(response.results, start=1)
        ],
        "errors": [
            {"index": error.index, "message": error.message, **_describe(documents[error.index].item)}
            for error in response.errors
        ],
    }


def _describe(item: Item) -> dict[str, str | None]:
    return {"text": item.text, "file": None if item.image is None else item.image.name}
