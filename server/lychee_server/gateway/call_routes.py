"""The routes that rank and score, in the gateway's own shape and in every dialect."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Body, Query, Request
from lychee_client import InvalidInputError, LycheeError
from lychee_client.calibration import thresholds_of
from pydantic import Discriminator, Tag
from starlette.responses import Response

from lychee_server.gateway.access_log import CLIENT_GONE
from lychee_server.gateway.answer_schemas import ExperimentReport, RerankAnswer, ScoreAnswer
from lychee_server.gateway.answers import make_rerank_answer, make_score_answer
from lychee_server.gateway.call_notes import current_notes
from lychee_server.gateway.call_options import find_policy
from lychee_server.gateway.calls import Answered, Calls, check_count
from lychee_server.gateway.dialects.choice import RERANK_PATHS, SCORE_PATHS
from lychee_server.gateway.dialects.route import ONE, PAIRS, DialectRoute, speak
from lychee_server.gateway.dialects.vllm import PairsBody
from lychee_server.gateway.documents import Fetcher
from lychee_server.gateway.errors import RequestValueError
from lychee_server.gateway.experiments.canary import TIME_SHARE, ask_canary
from lychee_server.gateway.experiments.running import Participant, RunningExperiment
from lychee_server.gateway.json_body import send_json
from lychee_server.gateway.model_services import ModelServices
from lychee_server.gateway.pairs import merge_scores, score_pairs
from lychee_server.gateway.request_ids import current_request_id, make_request_id
from lychee_server.gateway.request_schemas import (
    RERANK_EXAMPLES,
    SCORE_EXAMPLES,
    RerankRequest,
    ScoreRequest,
)
from lychee_server.gateway.route_errors import ERRORS
from lychee_server.gateway.service import Service
from lychee_server.gateway.service_answer import ServiceAnswer
from lychee_server.gateway.settings import GatewaySettings

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
    calls = Calls(settings, services, fetcher, takes_users=experiment is not None)

    async def rank(
        route: str, service: Service, body: RerankRequest, participant: Participant | None, began_at_s: float
    ) -> tuple[Answered[RerankRequest], str | None]:
        """Answer by the model of the call's arm; what a canary does not answer, the control's model does.

        Returns:
            The answer, and why it is the control's in place of the canary's; None: it is not.
        """
        if participant is None or participant.control is None:
            return await calls.ask(await calls.read_ranking(service, body, began_at_s), route), None
        control, control_body = participant.control
        call = await calls.read_ranking(control, control_body, began_at_s)  # the control says what can be asked

        async def ask() -> Answered[RerankRequest]:
            return await calls.ask(await call.ask_other(service, body), route, time_share=TIME_SHARE)

        async def ask_control() -> Answered[RerankRequest]:
            await services.choose(control.name)
            return await calls.ask(call, route)

        return await ask_canary(service, ask, ask_control)

    async def make_ranking(answered: Answered[RerankRequest]) -> RerankAnswer:
        """Return the answer of a ranking as callers get it, and offer the call to the shadow."""
        call, answer = answered.call, answered.answer
        shadow = None if experiment is None else experiment.find_shadow(current_request_id() or "-")
        if shadow is not None:
            shadow.offer(
                call.service,
                answer,
                answered.seconds,
                call.query,
                call.documents,
                call.options,
                keeps_policy=call.body.policy is not None,
            )
        return make_rerank_answer(call.body, answered.tell(), await _model_id(call.service, answer))

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
        named = (body.model or _model_of_path(request) or "").strip()
        service = await services.choose(named)
        participant = None
        if experiment is not None:
            request_id = current_request_id() or make_request_id()
            participant = experiment.assign(body, request_id, service if named else None)
            service = await services.choose(body.model or named)
        route = request.scope["route"].path
        try:
            found = await _while_connected(request, rank(route, service, body, participant, began_at_s))
            if found is None:
                return _gone()
            answered, fallback = found
            made = await make_ranking(answered)
        except LycheeError as error:
            if experiment is not None and participant is not None and not _is_callers(error):
                taken_s = time.monotonic() - began_at_s
                experiment.record_failure(participant, error, served=service.name, seconds=taken_s)
            raise
        if experiment is not None and participant is not None:
            call = answered.call
            made.ranking_id = experiment.record_ranking(
                participant,
                answered.answer.response,
                thresholds_of(find_policy(call.service, call.body)),
                served=call.service.name,
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
        route = request.scope["route"].path

        async def score_documents(query: object, documents: Sequence[object]) -> ServiceAnswer:
            return (await calls.ask(await calls.read(service, body, began_at_s, query, documents), route)).tell()

        if isinstance(body, RerankRequest):
            check_count(service, body)
            answers = await _while_connected(request, score_pairs(score_documents, body.query, body.documents))
            if answers is None:
                return _gone()
            return send_json(speak(request, merge_scores(answers, await _model_id(service, answers[0][1]))))
        answer = await _while_connected(request, score_documents(body.query, [body.document]))
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
