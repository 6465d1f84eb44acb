"""One pair's score as HTML."""

from __future__ import annotations

from typing import Final

from lychee_client import Policy

from lychee_server.gateway.service_answer import ServiceAnswer
from lychee_server.web.language import Words
from lychee_server.web.markup import render

WHY_KEYS: Final = ("score.why_both", "score.why_text", "score.why_image")


def render_empty(words: Words) -> str:
    """Return what stands there before the first score."""
    return render("empty", words, key="score.empty", is_announced=False)


def render_result(words: Words, answer: ServiceAnswer, policy: Policy) -> str:
    """Return the score with its decision, why it is so, and what the model read.

    Args:
        words: The texts of the page.
        answer: Document 0 is the pair; 1 and 2, where there, its text alone and its image alone.
        policy: Whose thresholds decide.
    """
    response = answer.response
    by_index = {result.index: result for result in response.results}
    has_parts = len(by_index) + len(response.errors) >= len(WHY_KEYS)
    verdict = None
    if 1 in by_index and 2 in by_index:
        is_text = by_index[1].relevance_score >= by_index[2].relevance_score
        verdict = "score.why_text_more" if is_text else "score.why_image_more"
    return render(
        "score",
        words,
        response=response,
        policy=policy,
        pair=by_index[0],
        why=[(key, by_index.get(index)) for index, key in enumerate(WHY_KEYS)] if has_parts else [],
        verdict=verdict,
    )
