"""A ranking as a table for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from rich.table import Table
from rich.text import Text

from lychee_client.thresholds import Decision
from lychee_client.types import ModelTimings, RerankResponse, RerankResult, Timings, text_of

BAR_WIDTH: Final = 20
QUOTED_CHARACTERS: Final = 40
_COLOURS: Final[dict[Decision, str]] = {"accept": "green", "review": "yellow", "reject": "red"}


def ranking_table(response: RerankResponse, sources: Sequence[str]) -> Table:
    """Return one row per result, in rank order.

    Args:
        response: The response to one call.
        sources: The names of the documents, by index.
    """
    table = Table(box=None, pad_edge=False)
    for name, justify in (("rank", "right"), ("", "left"), ("score", "right"), ("decision", "left")):
        table.add_column(name, justify="right" if justify == "right" else "left", no_wrap=True)
    table.add_column("modality", no_wrap=True)
    table.add_column("source", overflow="fold")
    has_spans = any(result.relevant_spans is not None for result in response.results)
    if has_spans:
        table.add_column("best sentence", overflow="fold")
    for rank, result in enumerate(response.results, start=1):
        colour = _COLOURS[result.decision]
        table.add_row(
            str(rank),
            Text(score_bar(result.relevance_score), style=colour),
            f"{result.relevance_score:.3f}",
            Text(result.decision, style=colour),
            result.modality,
            Text(sources[result.index] + _remarks(result)),
            *([Text(_best_sentence(result))] if has_spans else []),
        )
    return table


def result_line(result: RerankResult) -> Text:
    """Return one result as one line."""
    parts: list[str] = [result.modality]
    if result.tokens is not None:
        parts.append(f"{result.tokens} tokens")
    if result.image_size is not None and result.image_resized_to is not None:
        parts.append("{} x {} pixels resized to {} x {}".format(*result.image_size, *result.image_resized_to))
    if result.image_tokens is not None:
        parts.append(f"{result.image_tokens} image tokens")
    return Text.assemble(
        Text(score_bar(result.relevance_score), style=_COLOURS[result.decision]),
        f"  {result.relevance_score:.3f}  {result.decision}  logit {result.logit:.2f}  {', '.join(parts)}",
        _remarks(result),
    )


def server_table(models: Mapping[str, ModelTimings]) -> Table:
    """Return one row per model that the server counted."""
    table = Table(box=None, pad_edge=False)
    table.add_column("model")
    for name in ("requests", "queue ms", "compute ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, model in models.items():
        table.add_row(name, str(model.requests), f"{model.queue_ms:.1f}", f"{model.compute_ms:.1f}")
    return table


def _best_sentence(result: RerankResult) -> str:
    """Return the best sentence with its score; the result holds its document."""
    text = None if result.document is None else text_of(result.document)
    if text is None or not result.relevant_spans:
        return ""
    best = result.relevant_spans[0]
    return f"{best.score:.3f} {text[best.start : best.end]}"


def _remarks(result: RerankResult) -> str:
    truncated = _locate(result) + (" (truncated)" if result.truncated else "")
    return truncated + (" (below the threshold)" if result.below_threshold else "")


def _locate(result: RerankResult) -> str:
    """Return where the best chunk is, and how it begins, or an empty string."""
    if result.chunk is None:
        return ""
    start, end = result.chunk.start, result.chunk.end
    text = "" if result.document is None else text_of(result.document) or ""
    words = " ".join(text[start:end][:QUOTED_CHARACTERS].split())
    return f" (characters {start} to {end}" + (f": {words}…)" if words else ")")


def score_bar(relevance_score: float) -> str:
    """Return a bar of BAR_WIDTH characters for a score in [0, 1]."""
    filled = round(relevance_score * BAR_WIDTH)
    return "█" * filled + "░" * (BAR_WIDTH - filled)


def latency_line(timings: Timings) -> str:
    """Return the timings as one line."""
    spans = f", spans {timings.find_spans_ms:.1f}" if timings.find_spans_ms else ""
    return (
        f"{timings.total_ms:.1f} ms (preprocessing {timings.preprocess_ms:.1f}, "
        f"query {timings.encode_query_ms:.1f}, documents {timings.score_documents_ms:.1f}{spans})"
    )
