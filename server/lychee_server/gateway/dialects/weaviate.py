"""Weaviate's reranker-transformers: `property`, and a score for each document in the order of the request.

Source: https://github.com/weaviate/weaviate, modules/reranker-transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lychee_server.gateway.answer_schemas import RerankAnswer
from lychee_server.gateway.dialects.dialect import NUMBER, TEXT, TEXTS, Dialect, rows, shape


def _answer(answer: RerankAnswer, sent: Mapping[str, Any]) -> dict[str, Any]:
    results = sorted(answer.results, key=lambda result: result.index)
    scores = [{"document": sent["documents"][each.index], "score": each.relevance_score} for each in results]
    return {"query": sent["query"], "property": sent["property"], "scores": scores}


WEAVIATE: Final = Dialect(
    name="weaviate",
    shaping=frozenset({"property"}),
    answer=_answer,
    request=shape("WeaviateRequest", {"query": TEXT, "documents": TEXTS, "property": TEXT}),
    response=shape("WeaviateAnswer", {"scores": rows({"document": TEXT, "score": NUMBER})}),
)
