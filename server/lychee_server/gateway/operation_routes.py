"""The routes of probes, and of Prometheus."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from lychee_server.gateway.answer_schemas import HealthAnswer
from lychee_server.gateway.common_health import check_all, describe_readiness, tell_readiness
from lychee_server.gateway.json_body import send_json
from lychee_server.gateway.model_services import ModelServices
from lychee_server.gateway.request_schemas import ModelQuery

_UNHEALTHY: Final[dict[int | str, dict[str, Any]]] = {503: {"model": HealthAnswer, "description": "Not ok; says why."}}


def make_operation_routes(services: ModelServices) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["operation"])

    @router.get("/health", response_model=HealthAnswer, responses=_UNHEALTHY, summary="Score a pair, and say how it is")
    async def health(model: ModelQuery = None) -> Response:
        """Score a real pair on each model. Answers 503 with a reason unless the status of all is ok."""
        told: HealthAnswer
        if services.is_several and not model:
            told = await check_all(services)
        else:
            told = HealthAnswer.model_validate(await (await services.choose(model)).health.check())
        return send_json(told, 200 if told.status == "ok" else 503)

    @router.get("/health/live", summary="Whether the process answers")
    async def live() -> dict[str, str]:
        """Answer, whatever the state of Triton."""
        return {"status": "ok"}

    @router.get("/health/ready", responses=_UNHEALTHY, summary="Whether calls should be sent here")
    async def ready(model: ModelQuery = None) -> JSONResponse:
        """Answer 200 while Triton is there and its golden pairs matched, and the gateway is not stopping.

        Of several models one is enough, and the answer says which are not ready; with `model` it is about that one.
        """
        if services.is_several and not model:
            told, is_ready = tell_readiness(services)
        else:
            told = describe_readiness((await services.choose(model)).health)
            is_ready = told["status"] == "ok"
        return JSONResponse(told, 200 if is_ready else 503)

    @router.get("/metrics", response_class=Response, summary="Metrics for Prometheus")
    async def metrics() -> Response:
        """Render what the gateway counts, in Prometheus' text format."""
        content, content_type = services.metrics.render()
        return Response(content, headers={"content-type": content_type})

    return router
