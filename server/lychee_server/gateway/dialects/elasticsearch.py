"""Elasticsearch's services `cohere` and `jinaai`, which end a call at any field of a result that they do not know.

Source: https://github.com/elastic/elasticsearch, CohereRankedResponseEntity and JinaAIRerankResponseEntity.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lychee_server.gateway.answer_schemas import RerankAnswer
from lychee_server.gateway.dialects.dialect import INDEX, NUMBER, TEXT, TEXTS, Dialect, rows, shape, text_of


def _answer(answer: RerankAnswer, sent: Mapping[str, Any]) -> dict[str, Any]:
    results: list[dict[str, Any]] = []
    for result in answer.results:
        text = text_of(result)
        entry = {"index": result.index, "relevance_score": result.relevance_score}
        results.append(entry | ({} if text is None else {"document": {"text": text}}))
    return {"id": answer.id, "results": results}


ELASTICSEARCH: Final = Dialect(
    name="elasticsearch",
    answer=_answer,
    request=shape("ElasticsearchRequest", {"query": TEXT, "documents": TEXTS}),
    response=shape(
        "ElasticsearchAnswer",
        {"results": rows({"index": INDEX, "relevance_score": NUMBER, "document": {}}, "document")},
    ),
)
