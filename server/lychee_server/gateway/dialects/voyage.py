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
    INDEX,
    NUMBER,
    TEXT,
    TEXTS,
    TRUNCATION,
    USAGE,
    Dialect,
    list_results,
    rows,
    shape,
)


def _answer(answer: RerankAnswer, sent: Mapping[str, Any]) -> dict[str, Any]:
    data = list_results(answer, score="relevance_score", text="document")
    usage = {"total_tokens": answer.usage.total_tokens}
    return {"object": "list", "id": answer.id, "data": data, "model": answer.model, "usage": usage}


VOYAGE: Final = Dialect(
    name="voyage",
    fields={"top_k": "top_n"},
    values={"truncation": TRUNCATION},
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
