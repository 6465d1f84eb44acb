"""NVIDIA's NIM for ranking: `passages`, and `rankings` with logits.

Source: langchain-nvidia-ai-endpoints 1.5.0, llama-index-postprocessor-nvidia-rerank 0.7.0, nvidia-haystack 3.0.0 and
LiteLLM 1.110.2 (which reads `usage.total_tokens`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lychee_server.gateway.answer_schemas import RerankAnswer
from lychee_server.gateway.dialects.dialect import (
    COUNT,
    INDEX,
    NUMBER,
    TEXT,
    USAGE,
    Dialect,
    logits,
    rows,
    shape,
)


def _arrange(native: dict[str, Any], sent: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the empty texts that LangChain sends beside an image."""
    passages = native.get("documents")
    if isinstance(passages, list):
        native["documents"] = [
            {name: value for name, value in passage.items() if name != "text" or value}
            if isinstance(passage, dict) and passage.get("image")
            else passage
            for passage in passages
        ]
    return native


def _answer(answer: RerankAnswer, sent: Mapping[str, Any]) -> dict[str, Any]:
    total = answer.usage.total_tokens
    return {
        "id": answer.id,
        "model": answer.model,
        "rankings": [
            {"index": result.index, "logit": logit}
            for result, logit in zip(answer.results, logits(answer.results), strict=True)
        ],
        "usage": {"prompt_tokens": total, "total_tokens": total},
    }


NIM: Final = Dialect(
    name="nim",
    fields={"passages": "documents", "top_k": "top_n", "truncate": "truncation"},
    values={"truncate": {"NONE": False, "END": None}},
    arrange=_arrange,
    answer=_answer,
    request=shape(
        "NimRequest",
        {"query": shape("NimQuery", {"text": TEXT}), "passages": rows({"text": TEXT, "image": TEXT}, "text", "image")},
        {"model": TEXT, "truncate": {"enum": ["NONE", "END"]}, "top_k": COUNT},
    ),
    response=shape("NimAnswer", {"rankings": rows({"index": INDEX, "logit": NUMBER}), "usage": USAGE}),
)
