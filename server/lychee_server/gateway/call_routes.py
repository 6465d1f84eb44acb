"""The routes that rank and score, in the gateway's own shape and in every dialect."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Body, Query, Request
from lychee_client import InvalidInputError, LycheeError
from lychee_client.calibration import thresholds_of
from pydantic import Discriminator, Tag
from starlette.responses import Response

from lychee_server.defaults import MIB
from lychee_server.gateway.access_log import CLIENT_GONE
from lychee_server.gateway.answer_schemas import ExperimentReport, RerankAnswer, ScoreAnswer
from lychee_server.gateway.answers import make_rerank_answer, make_score_answer
from lychee_server.gateway.call_notes import current_notes
from lychee_server.gateway.call_options import find_policy, make_options
from lychee_server.gateway.dialects.choice import RERANK_PATHS, SCORE_PATHS
from lychee_server.gateway.dialects.route import ONE, PAIRS, DialectRoute, speak
from lychee_server.gateway.dialects.vllm import PairsBody
from lychee_server.gateway.documents import DocumentReader, Fetcher
from lychee_server.gateway.errors import RequestValueError
from lychee_server.gateway.experiments.canary import TIME_SHARE, ask_canary
from lychee_server.gateway.experiments.running import RunningExperiment
from lychee_server.gateway.json_body import send_json
from lychee_server.gateway.model_services import ModelServices
from lychee_server.gateway.pairs import merge_scores, score_pairs
from lychee_server.gateway.request_ids import current_request_id, make_request_id
from lychee_server.gateway.request_schemas import (
    RERANK_EXAMPLES,
    SCORE_EXAMPLES,
    CallOptions,
    RerankRequest,
    ScoreRequest,
)
from lychee_server.gateway.route_errors import ERRORS
from lychee_server.gateway.service import Service
from lychee_server.gateway.service_answer import ServiceAnswer
from lychee_server.gateway.settings import GatewaySettings
from lychee_server.gateway.unknown_names import UnknownNames

ScoreBody = Annotated[
    Annotated[ScoreRequest, Tag(ONE)] | Annotated[RerankRequest, Tag(PAIRS)],
    Discriminator(lambda sent: PAIRS if isinstance(sent, PairsBody) else ONE),
]

T = TypeVar("T")


def make_call_routes(
    settings: GatewaySettings,
    services: ModelServices,
    fetcher: Fetcher | None,
    experiment: RunningExperiment | None,
) -> APIRouter:
    """Return the routes.

    Args:
        settings: Of the gateway as a whole; what a model has of its own its service knows.
        services: Rank and score.
        fetcher: Fetches images by their URLs; None: nobody does.
        experiment: The one that the gateway runs.
    """
    router = APIRouter(tags=["rerank"], responses=ERRORS, route_class=DialectRoute)
    reader = DocumentReader(fetcher, settings.max_request_mb * MIB)

    async def call(
        request: Request,
        service: Service,
        body: CallOptions,
        began_at_s: float,
        query: object,
        documents: Sequence[object],
        *,
        in_experiment: bool = False,
        time_share: float = 1.0,
    ) -> ServiceAnswer:
        """Rank what a body holds, in this share of the time that is left."""
        names = UnknownNames(strict=settings.strict_fields)
        names.check_fields(body)
        if isinstance(body, RerankRequest) and body.user and not in_experiment:
            names.note_ignored("user")
        await services.check_name(service, body.model, names)
        options = await make_options(service, body)
        parsed_query, *parsed = await reader.read([query, *documents], names)
        if isinstance(parsed_query, InvalidInputError):
            raise InvalidInputError(f"query: {parsed_query}")
        for document in parsed:
            if isinstance(document, InvalidInputError):
                service.counts.reject("invalid")
        allowed_s = service.settings.timeout_s if body.timeout_ms is None else body.timeout_ms / 1e3
        sent_at_s = time.monotonic()
        options["timeout_s"] = max(1e-3, time_share * (allowed_s - (sent_at_s - began_at_s)))
        route = request.scope["route"].path
        answer = await service.rerank(parsed_query, parsed, options, request_id=current_request_id(), route=route)
        shadow = experiment.shadow if experiment is not None and in_experiment else None
        if experiment is not None and shadow is not None and experiment.takes_shadow(current_request_id() or "-"):
            taken_s = time.monotonic() - sent_at_s
            chosen = body.policy is not None
            shadow.offer(service, answer, taken_s, parsed_query, parsed, options, keeps_policy=chosen)
        return names.tell(answer, services.metrics)

    def check_count(service: Service, body: RerankRequest) -> None:
        most = service.settings.max_documents
        if not 1 <= len(body.documents) <= most:
            message = f"documents has {len(body.documents)} entries; expected 1 to {most}"
            raise RequestValueError(message, "documents")

    async def ask(
        request: Request, service: Service, body: RerankRequest, began_at_s: float, time_share: float = 1.0
    ) -> ServiceAnswer:
        """Answer a rerank's body by this model."""
        check_count(service, body)
        if body.top_n and body.min_results > body.top_n:
            raise RequestValueError("min_results is above top_n; expected at most as many", "min_results")
        return await call(
            request,
            service,
            body,
            began_at_s,
            body.query,
            body.documents,
            in_experiment=experiment is not None,
            time_share=time_share,
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
        began_at_s = time.monotonic()
        body.strict |= strict
        named = body.model or _model_of_path(request)
        service = await services.choose(named)
        participant = None
        if experiment is not None:
            asked = service if named and named.strip() else None
            participant = experiment.assign(body, current_request_id() or make_request_id(), asked)
            arm_model = experiment.model_of(participant)
            if arm_model is not None and (participant is not None or asked is None):
                service = await services.choose(arm_model.name)
        control = None if participant is None else participant.control
        fallback = None
        try:
            if control is None or control.model is None:
                answer = await _while_connected(request, ask(request, service, body, began_at_s))
            else:
                first = partial(ask, request, service, body, began_at_s, TIME_SHARE)
                second = partial(ask, request, services.services[control.model], control, began_at_s)
                found = await _while_connected(request, ask_canary(service, first, second))
                answer, fallback = (None, None) if found is None else found
                if fallback is not None:
                    body, service = control, await services.choose(control.model)
        except LycheeError as error:
            if experiment is not None and participant is not None and not _is_callers(error):
                taken_s = time.monotonic() - began_at_s
                experiment.record_failure(participant, error, served=service.name, seconds=taken_s)
            raise
        if answer is None:
            return _gone()
        made = make_rerank_answer(body, answer, await _model_id(service, answer))
        if experiment is not None and participant is not None:
            policy = thresholds_of(find_policy(service, body))
            made.ranking_id = experiment.record_ranking(
                participant,
                answer.response,
                policy,
                served=service.name,
                seconds=time.monotonic() - began_at_s,
                fallback=fallback,
            )
            made.experiment = ExperimentReport(name=experiment.name, arm=participant.arm)
            current_notes().ranking_id = made.ranking_id
        return send_json(speak(request, made))

    async def score(request: Request, body: Annotated[ScoreBody, Body(openapi_examples=SCORE_EXAMPLES)]) -> Response:
        """Score one document for a query, or as vLLM does. What cannot be scored is an error of status 400."""
        began_at_s = time.monotonic()
        service = await services.choose(body.model or _model_of_path(request))
        if isinstance(body, RerankRequest):
            check_count(service, body)
            score_one = partial(call, request, service, body, began_at_s)
            answers = await _while_connected(request, score_pairs(score_one, body.query, body.documents))
            if answers is None:
                return _gone()
            return send_json(speak(request, merge_scores(answers, await _model_id(service, answers[0][1]))))
        answer = await _while_connected(request, call(request, service, body, began_at_s, body.query, [body.document]))
        if answer is None:
            return _gone()
        for failed in answer.response.errors:
            if isinstance(failed.error, InvalidInputError):
                raise RequestValueError(failed.message, "document", kind="invalid_input")
            raise failed.error
        return send_json(make_score_answer(answer, await _model_id(service, answer)))

    for path in RERANK_PATHS:
        router.post(path, response_model=RerankAnswer, summary="Rank documents for a query")(rerank)
    for path in SCORE_PATHS:
        router.post(path, response_model=ScoreAnswer, summary="Score pairs")(score)
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


def _model_of_path(request: Request) -> str | None:
    """Return the model that NVIDIA's paths name, /v1/retrieval/OWNER/MODEL/reranking."""
    return "/".join(request.path_params[part] for part in ("owner", "model") if part in request.path_params) or None


def _is_callers(error: LycheeError) -> bool:
    """Say whether an error is the caller's mistake."""
    return isinstance(error, (InvalidInputError, RequestValueError))


def _gone() -> Response:
    return Response(status_code=CLIENT_GONE)  # nobody is there to read it


async def _model_id(service: Service, answer: ServiceAnswer) -> str:
    """Return the model's name, also where no document was good enough to be sent."""
    model = answer.response.model
    return (await service.manifest()).model_id if model is None else model.model_id
