"""A ranking as a table for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.table import Table
from rich.text import Text

from lychee_client._types import RerankResponse, Timings
from lychee_client.thresholds import Decision

BAR_WIDTH: Final = 20
_COLOURS: Final[dict[Decision, str]] = {"accept": "green", "review": "yellow", "reject": "red"}


def ranking_table(response: RerankResponse, sources: Sequence[str]) -> Table:
    """Return one row per result, in rank order.

    Args:
        response: Of one call.
        sources: What to call each document, by index.
    """
    table = Table(box=None, pad_edge=False)
    for name, justify in (("rank", "right"), ("", "left"), ("score", "right"), ("decision", "left")):
        table.add_column(name, justify="right" if justify == "right" else "left", no_wrap=True)
    table.add_column("modality", no_wrap=True)
    table.add_column("source", overflow="fold")
    for rank, result in enumerate(response.results, start=1):
        colour = _COLOURS[result.decision]
        table.add_row(
            str(rank),
            Text(score_bar(result.relevance_score), style=colour),
            f"{result.relevance_score:.3f}",
            Text(result.decision, style=colour),
            result.modality,
            Text(sources[result.index] + (" (truncated)" if result.truncated else "")),
        )
    return table


def score_bar(relevance_score: float) -> str:
    """Return a bar of BAR_WIDTH characters for a score in [0, 1]."""
    filled = round(relevance_score * BAR_WIDTH)
    return "█" * filled + "░" * (BAR_WIDTH - filled)


def latency_line(timings: Timings) -> str:
    """Return the timings as one line."""
    return (
        f"{timings.total_ms:.1f} ms (preprocessing {timings.preprocess_ms:.1f}, "
        f"query {timings.encode_query_ms:.1f}, documents {timings.score_documents_ms:.1f})"
    )
