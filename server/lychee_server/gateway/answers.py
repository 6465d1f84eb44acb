"""The answers of calls: from what the client returns to JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from lychee_server.gateway.answer_schemas import RerankAnswer, ScoreAnswer, ScoredDocument
from lychee_server.gateway.errors import find_fault
from lychee_server.gateway.request_schemas import RerankRequest
from lychee_server.gateway.service_answer import ServiceAnswer

META: Final[dict[str, Any]] = {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}
IGNORED: Final = ("rank_fields",)


def make_rerank_answer(body: RerankRequest, answer: ServiceAnswer, model_id: str) -> RerankAnswer:
    """Return the answer to a request for a ranking."""
    ignored = [f"{name} is ignored; see /docs" for name in IGNORED if getattr(body, name) is not None]
    errors = [
        {"index": failed.index, "message": failed.message, "type": find_fault(failed.error).kind}
        for failed in answer.response.errors
    ]
    ranking = {"results": answer.response.results, "errors": errors, "meta": META}
    made = RerankAnswer.model_validate(_describe_call(answer, model_id, ignored) | ranking)
    if body.return_documents:
        for result in made.results:
            result.document = _echo(body.documents[result.index])
    return made


def make_score_answer(answer: ServiceAnswer, model_id: str) -> ScoreAnswer:
    """Return the answer to a request for one pair's score; the document has one."""
    result = ScoredDocument.model_validate(answer.response.results[0])
    return ScoreAnswer.model_validate(_describe_call(answer, model_id, []) | dict(result))


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
        "query": response.query,
        "timings": response.timings,
        "embedding_cache": response.embedding_cache,
    }
