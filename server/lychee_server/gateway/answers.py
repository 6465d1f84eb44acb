"""The answers of calls: from what the client returns to JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from lychee_client import RerankResult

from lychee_server.gateway.schemas import FailedDocument, RankedDocument, RerankAnswer, RerankRequest, ScoreAnswer
from lychee_server.gateway.service_answer import ServiceAnswer

META: Final[dict[str, Any]] = {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}
IGNORED: Final = ("rank_fields", "max_tokens_per_doc", "max_chunks_per_doc")


def make_rerank_answer(body: RerankRequest, answer: ServiceAnswer, model_id: str) -> RerankAnswer:
    """Return the answer to a request for a ranking."""
    ignored = [f"{name} is ignored; see /docs" for name in IGNORED if getattr(body, name) is not None]
    results = [
        RankedDocument(
            index=result.index,
            below_threshold=result.below_threshold,
            document=_echo(body.documents[result.index]) if body.return_documents else None,
            **_describe_result(result),
        )
        for result in answer.response.results
    ]
    return RerankAnswer(
        **_describe_call(answer, model_id, ignored),
        results=results,
        errors=[FailedDocument(index=failed.index, message=failed.message) for failed in answer.response.errors],
        meta=META,
    )


def make_score_answer(answer: ServiceAnswer, model_id: str) -> ScoreAnswer:
    """Return the answer to a request for one pair's score; the document has one."""
    return ScoreAnswer(**_describe_call(answer, model_id, []), **_describe_result(answer.response.results[0]))


def _echo(document: Any) -> dict[str, Any]:
    return {"text": document} if isinstance(document, str) else dict(document)


def _describe_call(answer: ServiceAnswer, model_id: str, warnings: Sequence[str]) -> dict[str, Any]:
    response, usage = answer.response, answer.usage
    return {
        "id": answer.request_id,
        "model": model_id,
        "warnings": [*response.warnings, *warnings],
        "usage": {
            "total_tokens": usage.tokens,
            "prompt_tokens": usage.tokens,
            "images": usage.images,
            "documents": usage.documents,
        },
        "timings": asdict(response.timings),
        "embedding_cache": None if response.embedding_cache is None else asdict(response.embedding_cache),
    }


def _describe_result(result: RerankResult) -> dict[str, Any]:
    return {
        "relevance_score": result.relevance_score,
        "logit": result.logit,
        "decision": result.decision,
        "modality": result.modality,
        "truncated": result.truncated,
        "tokens": result.tokens,
        "image_size": result.image_size,
        "image_resized_to": result.image_resized_to,
        "image_tokens": result.image_tokens,
    }
