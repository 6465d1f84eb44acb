"""Text Embeddings Inference: `texts`, a bare array, errors with `error_type`, and `GET /info`.

Source: https://github.com/huggingface/text-embeddings-inference, router/src/http/types.rs and router/src/lib.rs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lychee_client import Manifest

from lychee_server.gateway.answer_schemas import RerankAnswer
from lychee_server.gateway.dialects.dialect import (
    BOOLEAN,
    FLAG,
    INDEX,
    NUMBER,
    TEXT,
    TEXTS,
    TRUNCATION,
    Dialect,
    is_on,
    list_results,
    rows,
    shape,
)

_ERROR_TYPES: Final = {424: "backend", 429: "overloaded", 503: "unhealthy"}
_LABEL: Final = "LABEL_0"


def _answer(answer: RerankAnswer, sent: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list_results(answer, score="score", text="text", raw=is_on(sent, "raw_scores"))


def _error(error: dict[str, Any], status: int) -> dict[str, Any]:
    kind = _ERROR_TYPES.get(status, "validation" if status < 500 else "backend")
    return {**error, "error": error["message"], "error_type": kind}


TEI: Final = Dialect(
    name="tei",
    fields={"texts": "documents", "return_text": "return_documents", "truncate": "truncation"},
    values={"raw_scores": FLAG, "truncate": TRUNCATION},
    shaping=frozenset({"raw_scores"}),
    ignored={"truncation_direction": ("Right", "right")},
    answer=_answer,
    error=_error,
    request=shape(
        "TeiRequest",
        {"query": TEXT, "texts": TEXTS},
        {
            "raw_scores": BOOLEAN,
            "return_text": BOOLEAN,
            "truncate": BOOLEAN,
            "truncation_direction": {"enum": ["Left", "Right"]},
        },
    ),
    response={"title": "TeiAnswer", **rows({"index": INDEX, "score": NUMBER, "text": TEXT}, "text")},
)


def describe_model(manifest: Manifest, version: str, *, max_documents: int, max_calls: int) -> dict[str, Any]:
    """Return what `GET /info` answers.

    Args:
        manifest: Of the served model.
        version: Of the gateway.
        max_documents: The most documents of a call.
        max_calls: How many calls are computed or wait at most.
    """
    return {
        "model_id": manifest.model_id,
        "model_sha": manifest.revision,
        "model_dtype": manifest.precision,
        "model_type": {"reranker": {"id2label": {"0": _LABEL}, "label2id": {_LABEL: 0}}},
        "max_concurrent_requests": max_calls,
        "max_input_length": manifest.text.max_tokens,
        "max_batch_tokens": max_documents * manifest.text.max_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": max_documents,
        "auto_truncate": True,
        "tokenization_workers": 1,
        "version": version,
        "sha": None,
        "docker_label": None,
    }
