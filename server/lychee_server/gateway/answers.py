"""The answers of calls: from what the client returns to JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from lychee_server.gateway.answer_schemas import RerankAnswer, ScoreAnswer, ScoredDocument, UnrankedDocument
from lychee_server.gateway.call_notes import current_notes
from lychee_server.gateway.errors import RequestValueError, find_fault
from lychee_server.gateway.json_body import is_renderable
from lychee_server.gateway.request_schemas import RerankRequest
from lychee_server.gateway.service_answer import ServiceAnswer

META: Final[dict[str, Any]] = {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}
MAX_NAMED: Final = 10  # documents in one message
MAX_REASON: Final = 200  # characters of what is wrong with one of them
IGNORED: Final = ("rank_fields",)


def make_rerank_answer(body: RerankRequest, answer: ServiceAnswer, model_id: str) -> RerankAnswer:
    """Return the answer to a request for a ranking: every document has a result, if the options leave it in.

    A document that could not be ranked is the last, as if it had the lowest score: `top_n` may cut it off, a
    `score_threshold` above 0 leaves it out, and `min_results` does not bring it back.

    Raises:
        RequestValueError: None could be ranked because of what was sent, or one could not and the request is strict.
        LycheeError: One could not be ranked because of the server, and the request is strict.
    """
    ignored = [f"{name} is ignored; see /docs" for name in IGNORED if getattr(body, name) is not None]
    errors = [
        {"index": failed.index, "message": failed.message, "type": find_fault(failed.error).kind}
        for failed in answer.response.errors
    ]
    _check_failures(body, answer, errors)
    meta = META | {"tokens": {"input_tokens": answer.usage.tokens, "output_tokens": 0}}
    ranking = {"results": answer.response.results, "errors": errors, "meta": meta}
    if not body.score_threshold:
        left = answer.response.errors[: body.top_n - len(answer.response.results) if body.top_n else None]
        unranked = [UnrankedDocument(index=failed.index, message=failed.message) for failed in left]
        ranking["results"] = [*answer.response.results, *unranked]
    made = RerankAnswer.model_validate(_describe_call(answer, model_id, ignored) | ranking)
    if body.return_documents:
        for result in made.results:
            result.document = _echo(body.documents[result.index])
    return made


def make_score_answer(answer: ServiceAnswer, model_id: str) -> ScoreAnswer:
    """Return the answer to a request for one pair's score; the document has one."""
    result = ScoredDocument.model_validate(answer.response.results[0])
    return ScoreAnswer.model_validate(_describe_call(answer, model_id, []) | dict(result))


def _check_failures(body: RerankRequest, answer: ServiceAnswer, errors: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a call of which nothing was ranked, or not everything where that is asked for."""
    failures = answer.response.errors
    if not failures or (answer.usage.documents and not body.strict):
        return
    ours = [failed for failed in failures if find_fault(failed.error).status >= 500]
    if ours and body.strict:
        raise ours[0].error
    if ours:
        return
    named = "; ".join(f"documents[{failed.index}]: {failed.message[:MAX_REASON]}" for failed in failures[:MAX_NAMED])
    more = f"; and {len(failures) - MAX_NAMED} more" if len(failures) > MAX_NAMED else ""
    message = f"{len(failures)} of {len(body.documents)} documents cannot be ranked: {named}{more}"
    raise RequestValueError(message, "documents", kind="invalid_input", errors=errors)


def _echo(document: Any) -> dict[str, Any] | None:
    """Return a document as results show it; None where it was neither text nor object, or cannot be shown."""
    if isinstance(document, str):
        return {"text": document}
    return document if isinstance(document, dict) and is_renderable(document) else None


def _describe_call(answer: ServiceAnswer, model_id: str, warnings: Sequence[str]) -> dict[str, Any]:
    response, usage = answer.response, answer.usage
    current_notes().warnings = len(response.warnings) + len(warnings)
    return {
        "id": answer.request_id,
        "model": model_id,
        "model_version": response.model_version,
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
