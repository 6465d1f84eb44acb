"""The routes of the REST API."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence, Set
from contextlib import suppress
from functools import partial
from importlib import metadata
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Body, FastAPI, Query, Request
from lychee_client import InvalidInputError, LycheeError
from lychee_client.calibration import thresholds_of
from lychee_client.instructions import all_instructions
from pydantic import Discriminator, Tag
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from lychee_server.defaults import MIB
from lychee_server.gateway.access_log import CLIENT_GONE
from lychee_server.gateway.answer_schemas import (
    ErrorAnswer,
    ExecutionEntry,
    ExperimentReport,
    HealthAnswer,
    InstructionEntry,
    InstructionList,
    ModelEntry,
    ModelList,
    RerankAnswer,
    ScoreAnswer,
    SettingsAnswer,
    describe_policies,
)
from lychee_server.gateway.answers import make_rerank_answer, make_score_answer
from lychee_server.gateway.calibration_routes import make_calibration_routes
from lychee_server.gateway.call_notes import current_notes
from lychee_server.gateway.call_options import check_model, find_policy, list_names, make_options
from lychee_server.gateway.dialects.choice import RERANK_PATHS, SCORE_PATHS
from lychee_server.gateway.dialects.description import describe_dialects
from lychee_server.gateway.dialects.route import ONE, PAIRS, DialectRoute, speak
from lychee_server.gateway.dialects.tei import describe_model
from lychee_server.gateway.dialects.vllm import PairsBody
from lychee_server.gateway.documents import DocumentReader, Fetcher
from lychee_server.gateway.errors import RequestValueError
from lychee_server.gateway.experiments.feedback_route import make_feedback_routes
from lychee_server.gateway.experiments.running import RunningExperiment
from lychee_server.gateway.image_urls import ImageFetcher
from lychee_server.gateway.json_body import render_json
from lychee_server.gateway.pairs import merge_scores, score_pairs
from lychee_server.gateway.request_ids import current_request_id
from lychee_server.gateway.request_schemas import (
    RERANK_EXAMPLES,
    SCORE_EXAMPLES,
    CallOptions,
    RerankRequest,
    ScoreRequest,
)
from lychee_server.gateway.service import DISTRIBUTION, Service
from lychee_server.gateway.service_answer import ServiceAnswer
from lychee_server.gateway.unknown_names import UnknownNames

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    400: {"model": ErrorAnswer, "description": "A value cannot be used."},
    401: {"model": ErrorAnswer, "description": "The API key is missing or wrong."},
    404: {"model": ErrorAnswer, "description": "Another model is served, and the gateway refuses other names."},
    413: {"model": ErrorAnswer, "description": "The body is too large."},
    422: {"model": ErrorAnswer, "description": "The JSON has another shape."},
    429: {"model": ErrorAnswer, "description": "Too many calls; see the header Retry-After."},
    502: {"model": ErrorAnswer, "description": "The model server failed."},
    503: {"model": ErrorAnswer, "description": "The model server is not there; see the header Retry-After."},
    504: {"model": ErrorAnswer, "description": "The call took longer than its timeout."},
}
_UNHEALTHY: Final[dict[int | str, dict[str, Any]]] = {503: {"model": HealthAnswer, "description": "Not ok; says why."}}

ScoreBody = Annotated[
    Annotated[ScoreRequest, Tag(ONE)] | Annotated[RerankRequest, Tag(PAIRS)],
    Discriminator(lambda sent: PAIRS if isinstance(sent, PairsBody) else ONE),
]

T = TypeVar("T")


def install_routes(
    app: FastAPI, service: Service, fetcher: ImageFetcher | None, experiment: RunningExperiment | None
) -> None:
    """Add the routes to an app."""
    app.include_router(_make_call_routes(service, fetcher, experiment))
    strict_fields = service.settings.strict_fields
    app.include_router(make_feedback_routes(experiment, service.metrics, strict_fields=strict_fields))
    app.include_router(_make_model_routes(service))
    app.include_router(make_calibration_routes(service))
    app.include_router(_make_operation_routes(service))
    describe_dialects(app)


def refuse_other_methods(app: FastAPI) -> None:
    """Have every route so far refuse the methods that it lacks: a mount below would say that there is no such path."""
    taken = {path: {method.upper() for method in methods} for path, methods in app.openapi()["paths"].items()}
    for path, methods in {**taken, "/docs": {"GET", "HEAD"}, "/openapi.json": {"GET", "HEAD"}}.items():
        app.add_route(path, _make_refusal(methods), methods=sorted(METHODS - methods))


def _make_refusal(methods: Set[str]) -> Callable[[Request], Awaitable[Response]]:
    async def refuse_method(request: Request) -> Response:
        raise HTTPException(405, headers={"allow": ", ".join(sorted(methods))})

    return refuse_method


def _make_call_routes(service: Service, fetcher: Fetcher | None, experiment: RunningExperiment | None) -> APIRouter:
    router = APIRouter(tags=["rerank"], responses=_ERRORS, route_class=DialectRoute)
    settings = service.settings
    reader = DocumentReader(fetcher, settings.max_request_mb * MIB)

    async def call(
        request: Request,
        body: CallOptions,
        began_at_s: float,
        query: object,
        documents: Sequence[object],
        *,
        takes_user: bool = False,
    ) -> ServiceAnswer:
        """Rank what a body holds, as long as the caller listens."""
        names = UnknownNames(strict=settings.strict_fields)
        names.check_fields(body)
        if isinstance(body, RerankRequest) and body.user and not takes_user:
            names.note_ignored("user")
        await check_model(service, body.model, names)
        options = await make_options(service, body)
        parsed_query, *parsed = await reader.read([query, *documents], names)
        if isinstance(parsed_query, InvalidInputError):
            raise InvalidInputError(f"query: {parsed_query}")
        for document in parsed:
            if isinstance(document, InvalidInputError):
                service.metrics.reject("invalid")
        allowed_s = settings.timeout_s if body.timeout_ms is None else body.timeout_ms / 1e3
        options["timeout_s"] = max(1e-3, allowed_s - (time.monotonic() - began_at_s))
        route = request.scope["route"].path
        answer = await service.rerank(parsed_query, parsed, options, request_id=current_request_id(), route=route)
        return names.tell(answer, service.metrics)

    def check_count(body: RerankRequest) -> None:
        if not 1 <= len(body.documents) <= settings.max_documents:
            raise RequestValueError(
                f"documents has {len(body.documents)} entries; expected 1 to {settings.max_documents}", "documents"
            )

    async def rerank(
        request: Request,
        body: Annotated[RerankRequest, Body(openapi_examples=RERANK_EXAMPLES)],
        strict: Annotated[bool, Query(description="The same as the field `strict`.")] = False,
    ) -> Response:
        """Score every document from 0 to 1, rank them, and decide.

        A document that cannot be ranked stands at the end of `results`, with `decision` "error", and in `errors`; it
        costs the others nothing.
        """
        body.strict |= strict
        check_count(body)
        participant = None if experiment is None else experiment.assign(body)
        if body.top_n and body.min_results > body.top_n:
            raise RequestValueError("min_results is above top_n; expected at most as many", "min_results")
        takes_user = experiment is not None
        work = call(request, body, time.monotonic(), body.query, body.documents, takes_user=takes_user)
        answer = await _while_connected(request, work)
        if answer is None:
            return _gone()
        made = make_rerank_answer(body, answer, await _model_id(service, answer))
        if experiment is not None and participant is not None:
            policy = thresholds_of(find_policy(service, body))
            made.ranking_id = experiment.record_ranking(participant, answer.response, policy)
            made.experiment = ExperimentReport(name=experiment.name, arm=participant.arm)
            current_notes().ranking_id = made.ranking_id
        return _send(speak(request, made))

    async def score(request: Request, body: Annotated[ScoreBody, Body(openapi_examples=SCORE_EXAMPLES)]) -> Response:
        """Score one document for a query, or as vLLM does. What cannot be scored is an error of status 400."""
        began_at_s = time.monotonic()
        if isinstance(body, RerankRequest):
            check_count(body)
            ask = partial(call, request, body, began_at_s)
            answers = await _while_connected(request, score_pairs(ask, body.query, body.documents))
            if answers is None:
                return _gone()
            return _send(speak(request, merge_scores(answers, await _model_id(service, answers[0][1]))))
        answer = await _while_connected(request, call(request, body, began_at_s, body.query, [body.document]))
        if answer is None:
            return _gone()
        for failed in answer.response.errors:
            if isinstance(failed.error, InvalidInputError):
                raise RequestValueError(failed.message, "document", kind="invalid_input")
            raise failed.error
        return _send(make_score_answer(answer, await _model_id(service, answer)))

    for path in RERANK_PATHS:
        router.post(path, response_model=RerankAnswer, summary="Rank documents for a query")(rerank)
    for path in SCORE_PATHS:
        router.post(path, response_model=ScoreAnswer, summary="Score pairs")(score)
    return router


def _make_model_routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["model"], responses={503: _ERRORS[503]})

    @router.get("/v1/models", summary="The served model")
    async def models() -> ModelList:
        """Describe the model that Triton serves, once for each of its names."""
        manifest = await service.manifest()
        return ModelList(
            data=[
                ModelEntry(
                    id=alias,
                    root=manifest.model_id,
                    revision=manifest.revision,
                    version=manifest.version,
                    precision=manifest.precision,
                    execution={name: ExecutionEntry.model_validate(each) for name, each in manifest.execution.items()},
                    family=manifest.family,
                    max_tokens=manifest.text.max_tokens,
                    reads_instruction=manifest.instruction is not None,
                    default_instruction=None if manifest.instruction is None else manifest.instruction.default,
                    artifacts=dict(manifest.artifacts),
                    max_timeout_ms=1e3 * service.settings.timeout_s,
                    max_img_size=manifest.max_img_size,
                )
                for alias in await list_names(service)
            ]
        )

    @router.get("/v1/models/{name:path}", responses={404: _ERRORS[404]}, summary="The served model, by its name")
    async def model(name: str) -> ModelEntry:
        """Describe the model that Triton serves, whatever it is called, as calls for it are answered, too."""
        await check_model(service, name, UnknownNames(strict=False))
        entries = (await models()).data
        return next((entry for entry in entries if entry.id == name), entries[0])

    @router.get("/info", summary="The served model, as clients of Text Embeddings Inference read it")
    async def info() -> dict[str, Any]:
        """Say that the model is a reranker, how long texts may be, and how many fit into a call."""
        settings = service.settings
        return describe_model(
            await service.manifest(),
            metadata.version(DISTRIBUTION),
            max_documents=settings.max_documents,
            max_calls=settings.max_concurrency + settings.max_waiting,
        )

    @router.get("/v1/settings", summary="Policies and limits")
    async def settings() -> SettingsAnswer:
        """List the policies with their thresholds, the one that is used by default, and the limits of a call."""
        limits = service.settings
        return SettingsAnswer(
            version=metadata.version(DISTRIBUTION),
            policies=describe_policies(service.policies()),
            default_policy=service.default_policy,
            max_documents=limits.max_documents,
            max_request_mb=limits.max_request_mb,
            timeout_ms=1e3 * limits.timeout_s,
        )

    @router.get("/v1/instructions", summary="Named instructions")
    async def instructions() -> InstructionList:
        """List the instructions that `instruction: {"name": ...}` can name."""
        templates = await asyncio.to_thread(all_instructions)
        return InstructionList(
            data=[
                InstructionEntry(
                    name=name, purpose=template.purpose, texts={str(k): v for k, v in template.texts.items()}
                )
                for name, template in templates.items()
            ]
        )

    return router


def _make_operation_routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["operation"])

    @router.get("/health", response_model=HealthAnswer, responses=_UNHEALTHY, summary="Score a pair, and say how it is")
    async def health() -> Response:
        """Score a real pair. Answers 503 with a reason unless the status is ok."""
        report = await service.health.check()
        return _send(HealthAnswer.model_validate(report), 200 if report.status == "ok" else 503)

    @router.get("/health/live", summary="Whether the process answers")
    async def live() -> dict[str, str]:
        """Answer, whatever the state of Triton."""
        return {"status": "ok"}

    @router.get("/health/ready", responses=_UNHEALTHY, summary="Whether calls should be sent here")
    async def ready() -> JSONResponse:
        """Answer 200 while Triton is there and its golden pairs matched, and the gateway is not stopping."""
        state, reason = service.health.state, service.health.reason
        if state == "ready":
            return JSONResponse({"status": "ok"})
        status = "degraded" if state == "degraded" else "unavailable"
        return JSONResponse({"status": status, "reason": f"{state}: {reason}"}, 503)

    @router.get("/metrics", response_class=Response, summary="Metrics for Prometheus")
    async def metrics(request: Request) -> Response:
        """Render what the gateway counts: in Prometheus' text format, or as OpenMetrics where it is accepted."""
        content, content_type = service.metrics.render(request.headers.get("accept", ""))
        return Response(content, headers={"content-type": content_type})

    return router


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """Return what the work returns; cancel it and return None when the caller hangs up."""
    task = asyncio.create_task(work)
    watch = asyncio.create_task(_wait_for_disconnect(request))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        return await task if task.done() else None
    finally:
        for started in (task, watch):
            if not started.done():
                started.cancel()
                with suppress(asyncio.CancelledError, LycheeError):
                    await started


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _gone() -> Response:
    return Response(status_code=CLIENT_GONE)  # nobody is there to read it


async def _model_id(service: Service, answer: ServiceAnswer) -> str:
    """Return the model's name, also where no document was good enough to be sent."""
    model = answer.response.model
    return (await service.manifest()).model_id if model is None else model.model_id


def _send(body: Any, status: int = 200) -> Response:
    return Response(render_json(body), status, media_type="application/json")
