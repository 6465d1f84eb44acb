"""Mixedbread: `input`, `top_k` and `return_input`, and an answer in `data`.

Source: mixedbread 0.54.0 and mixedbread-ai 2.2.6, whose models of the answer need `top_k` and `return_input`.
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
    USAGE,
    Dialect,
    is_on,
    rows,
    shape,
)

_PARTS: Final = frozenset({"text", "image_url"})


def _arrange(native: dict[str, Any], sent: Mapping[str, Any]) -> dict[str, Any]:
    """Read `{"type": "text", ...}` and `{"type": "image_url", ...}`, as the older client sends them."""
    for name in ("query", "documents"):
        value = native.get(name)
        if value is not None:
            native[name] = [_read_part(each) for each in value] if isinstance(value, list) else _read_part(value)
    return native


def _read_part(value: Any) -> Any:
    return {"content": [value]} if isinstance(value, dict) and value.get("type") in _PARTS else value


def _answer(answer: RerankAnswer, sent: Mapping[str, Any]) -> dict[str, Any]:
    returns = is_on(sent, "return_input")
    data = [
        {"object": "rank_result", "index": result.index, "score": result.relevance_score}
        | ({"input": sent["input"][result.index]} if returns else {})
        for result in answer.results
    ]
    total = answer.usage.total_tokens
    return {
        "object": "list",
        "id": answer.id,
        "model": answer.model,
        "data": data,
        "top_k": len(data),
        "return_input": returns,
        "usage": {"prompt_tokens": total, "total_tokens": total, "completion_tokens": 0},
    }


MIXEDBREAD: Final = Dialect(
    name="mixedbread",
    fields={"input": "documents", "top_k": "top_n"},
    values={"return_input": FLAG},
    shaping=frozenset({"return_input"}),
    ignored={"rewrite_query": (False,)},
    arrange=_arrange,
    answer=_answer,
    request=shape(
        "MixedbreadRequest",
        {"query": TEXT, "input": {"type": "array", "minItems": 1, "items": {}}},
        {"model": TEXT, "top_k": COUNT, "return_input": BOOLEAN, "rewrite_query": BOOLEAN, "rank_fields": {}},
    ),
    response=shape(
        "MixedbreadAnswer",
        {
            "object": {"const": "list"},
            "data": rows({"index": INDEX, "score": NUMBER, "input": {}}, "input"),
            "model": TEXT,
            "top_k": INDEX,
            "return_input": BOOLEAN,
            "usage": USAGE,
        },
    ),
)
