"""A ranking as HTML: summary, downloads, one row for each document, and what could not be ranked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from lychee_client import Policy

from lychee_server.gateway.service_answer import ServiceAnswer
from lychee_server.web.inputs import Item, Loaded
from lychee_server.web.language import Words
from lychee_server.web.markup import render


def render_empty(words: Words) -> str:
    """Return what stands there before the first ranking."""
    return render("empty", words, key="rerank.empty", is_announced=False)


def render_ranking(
    words: Words, answer: ServiceAnswer, query: Loaded, documents: Sequence[Loaded], policy: Policy
) -> str:
    """Return a ranking. The data of the downloads is in the attribute `data-results`, as JSON.

    Args:
        words: The texts of the page.
        answer: The answer of the service.
        query: What was asked.
        documents: In the order of the call.
        policy: Whose thresholds decide at first.
    """
    response = answer.response
    return render(
        "rerank",
        words,
        response=response,
        policy=policy,
        count=len(documents),
        counts=Counter(result.decision for result in response.results),
        ranking=[(result, documents[result.index]) for result in response.results],
        failed=[(error, documents[error.index]) for error in response.errors],
        data=json.dumps(_to_data(answer, query, documents), ensure_ascii=False, separators=(",", ":")),
    )


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
