"""vLLM's score: one query with many documents, or as many queries as documents; a score for each pair, in their order.

Source: https://github.com/vllm-project/vllm, vllm/entrypoints/pooling/scoring/protocol.py and io_processor.py.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from lychee_server.gateway.dialects.dialect import (
    BOOLEAN,
    COUNT,
    FLAG,
    INDEX,
    NUMBER,
    TEXT,
    USAGE,
    Dialect,
    logits,
    rows,
    shape,
)
from lychee_server.gateway.errors import RequestValueError
from lychee_server.gateway.pairs import PairScores

_QUERIES: Final = ("text_1", "data_1", "queries")
_DOCUMENTS: Final = ("text_2", "data_2", "items", "documents")
_INPUTS: Final[dict[str, Any]] = {"anyOf": [TEXT, {"type": "object"}, {"type": "array", "minItems": 1}]}
_OPTIONS: Final = {"model": TEXT, "use_activation": BOOLEAN, "truncate_prompt_tokens": COUNT}


class PairsBody(dict[str, Any]):
    """A request for a ranking whose query may be a list: then each document has its own query."""


def _arrange(native: dict[str, Any], sent: Mapping[str, Any]) -> dict[str, Any]:
    query, documents = native.get("query"), native.get("documents")
    if "documents" in native and not isinstance(documents, list):
        documents = native["documents"] = [documents]
    if isinstance(query, list) and isinstance(documents, list):
        first, second = (next((each for each in names if each in sent), names[0]) for names in (_QUERIES, _DOCUMENTS))
        if len(query) != 1 and len(query) != len(documents):
            raise RequestValueError(
                f"{first} has {len(query)} entries and {second} {len(documents)}; expected one and any number, or the "
                "same number of both",
                first,
                status=422,
                kind="invalid_shape",
            )
        if len(query) == 1 and not isinstance(query[0], list):  # a list would be taken for many queries
            native["query"] = query[0]
        elif len(query) == 1:
            native["query"] = query * len(documents)
    return PairsBody(native)


def _answer(answer: PairScores, sent: Mapping[str, Any]) -> dict[str, Any]:
    is_raw = FLAG.get(sent.get("use_activation")) is False
    relevance = [0.0 if each is None else each.relevance_score for each in answer.scores]
    scores = logits(answer.scores) if is_raw else relevance
    return {
        "id": answer.id,
        "object": "list",
        "created": int(time.time()),
        "model": answer.model,
        "data": [{"index": index, "object": "score", "score": score} for index, score in enumerate(scores)],
        "usage": {
            "prompt_tokens": answer.total_tokens,
            "total_tokens": answer.total_tokens,
            "completion_tokens": 0,
        },
    }


VLLM: Final = Dialect(
    name="vllm",
    fields={**dict.fromkeys(_QUERIES, "query"), **dict.fromkeys(_DOCUMENTS, "documents")},
    values={"use_activation": FLAG},
    shaping=frozenset({"use_activation"}),
    ignored={"truncation_side": ("right",), "truncate_prompt_tokens": (-1,)},
    arrange=_arrange,
    answer=_answer,
    request={
        "title": "VllmScoreRequest",
        "anyOf": [
            shape(f"VllmScoreRequest_{first}_{second}", {first: _INPUTS, second: _INPUTS}, _OPTIONS)
            for first, second in (
                ("text_1", "text_2"),
                ("data_1", "data_2"),
                ("queries", "documents"),
                ("queries", "items"),
            )
        ],
    },
    response=shape(
        "VllmScoreAnswer",
        {
            "id": TEXT,
            "object": {"const": "list"},
            "created": INDEX,
            "model": TEXT,
            "data": rows({"index": INDEX, "object": {"const": "score"}, "score": NUMBER}),
            "usage": USAGE,
        },
    ),
)
