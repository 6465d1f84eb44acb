"""Infinity: `raw_scores`, and documents that come back as strings.

Source: infinity_client 0.0.78, and LiteLLM 1.110.2, whose model of the answer takes nothing but a string as `document`.
"""

from __future__ import annotations

import time
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
    is_on,
    list_results,
    rows,
    shape,
)


def _answer(answer: RerankAnswer, sent: Mapping[str, Any]) -> dict[str, Any]:
    total = answer.usage.total_tokens
    return {
        "object": "rerank",
        "id": answer.id,
        "created": int(time.time()),
        "model": answer.model,
        "results": list_results(answer, score="relevance_score", text="document", raw=is_on(sent, "raw_scores")),
        "usage": {"prompt_tokens": total, "total_tokens": total},
    }


INFINITY: Final = Dialect(
    name="infinity",
    values={"raw_scores": FLAG},
    shaping=frozenset({"raw_scores"}),
    answer=_answer,
    request=shape(
        "InfinityRequest",
        {"query": TEXT, "documents": TEXTS},
        {"model": TEXT, "top_n": COUNT, "return_documents": BOOLEAN, "raw_scores": BOOLEAN},
    ),
    response=shape(
        "InfinityAnswer",
        {
            "object": {"const": "rerank"},
            "results": rows({"index": INDEX, "relevance_score": NUMBER, "document": TEXT}, "document"),
            "model": TEXT,
            "usage": USAGE,
            "id": TEXT,
            "created": INDEX,
        },
    ),
)
