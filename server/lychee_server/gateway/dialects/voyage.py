"""Voyage: `top_k`, and an answer in `data`, whose documents are strings.

Source: voyageai 0.5.0, and LiteLLM 1.110.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lychee_server.gateway.answer_schemas import RerankAnswer
from lychee_server.gateway.dialects.dialect import (
    BOOLEAN,
    COUNT,
    FLAG,
    INDEX,
    NUMBER,
    TEXT,
    TEXTS,
    USAGE,
    Dialect,
    rows,
    shape,
    text_of,
)


def _answer(answer: RerankAnswer, sent: Mapping[str, Any]) -> dict[str, Any]:
    data: list[dict[str, Any]] = []
    for result in answer.results:
        text = text_of(result)
        entry = {"index": result.index, "relevance_score": result.relevance_score}
        data.append(entry | ({} if text is None else {"document": text}))
    usage = {"total_tokens": answer.usage.total_tokens}
    return {"object": "list", "id": answer.id, "data": data, "model": answer.model, "usage": usage}


VOYAGE: Final = Dialect(
    name="voyage",
    fields={"top_k": "top_n"},
    values={"truncation": {**FLAG, True: None, "true": None, "True": None}},
    answer=_answer,
    request=shape(
        "VoyageRequest",
        {"query": TEXT, "documents": TEXTS, "model": TEXT, "top_k": {"anyOf": [COUNT, {"type": "null"}]}},
        {"return_documents": BOOLEAN, "truncation": BOOLEAN},
    ),
    response=shape(
        "VoyageAnswer",
        {
            "object": {"const": "list"},
            "data": rows({"index": INDEX, "relevance_score": NUMBER, "document": TEXT}, "document"),
            "model": TEXT,
            "usage": USAGE,
        },
    ),
)
