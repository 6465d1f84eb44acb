"""`POST /v1/feedback`: what users did with rankings."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Body
from fastapi.responses import JSONResponse
from lychee_client import LycheeError
from starlette.responses import Response

from lychee_server.gateway.answer_schemas import ErrorAnswer
from lychee_server.gateway.errors import RETRY_AFTER_S, RequestValueError, make_error
from lychee_server.gateway.experiments.feedback import FEEDBACK_EXAMPLES, FeedbackAnswer, FeedbackRequest
from lychee_server.gateway.experiments.running import RunningExperiment
from lychee_server.gateway.json_body import JsonRoute
from lychee_server.gateway.metrics import Metrics
from lychee_server.gateway.unknown_names import UnknownNames

PATH: Final = "/v1/feedback"


def make_feedback_routes(experiment: RunningExperiment | None, metrics: Metrics, *, strict_fields: bool) -> APIRouter:
    """Return the route; without an experiment it says that there is none.

    Args:
        experiment: The experiment that the gateway runs.
        metrics: Are told of what was ignored.
        strict_fields: Whether unknown fields are errors.
    """
    router = APIRouter(
        tags=["experiment"],
        route_class=JsonRoute,
        responses={
            404: {"model": ErrorAnswer, "description": "No experiment runs here."},
            503: {"model": ErrorAnswer, "description": "It could not be written down; see the header Retry-After."},
        },
    )

    @router.post(PATH, response_model=FeedbackAnswer, summary="Tell what a user did with a ranking")
    async def feedback(body: Annotated[FeedbackRequest, Body(openapi_examples=FEEDBACK_EXAMPLES)]) -> Response:
        """Write down clicks, reading time and conversions, for `lychee ab-report`.

        Rankings of other replicas are as good as those of this one. Either all events are written down or none is.
        """
        if experiment is None:
            message = "no experiment runs here, so nothing is written down; start the gateway with --experiment"
            raise RequestValueError(message, "ranking_id", status=404, kind="no_experiment")
        names = UnknownNames(strict=strict_fields)
        for part in (body, *body.events):
            names.check_fields(part)
        try:
            known = await experiment.record_events(body.ranking_id, body.events)
        except LycheeError:
            message = "the events could not be written down; send them again later"
            return make_error(503, "not_recorded", message, None, {"retry-after": str(RETRY_AFTER_S)})
        told = FeedbackAnswer(accepted=len(body.events), known=known, warnings=names.collect(metrics))
        return JSONResponse(told.model_dump())

    return router
