"""`/v1/calibration`: which thresholds decide where a call names no policy, and other ones in their place."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from fastapi import APIRouter, Request
from lychee_client import Calibration
from lychee_client.thresholds import get_policy
from pydantic import BaseModel, Field

from lychee_server.gateway.answer_schemas import ErrorAnswer
from lychee_server.gateway.errors import RequestValueError
from lychee_server.gateway.model_services import ModelServices
from lychee_server.gateway.own_calibration import Source
from lychee_server.gateway.request_schemas import ModelQuery
from lychee_server.gateway.service import Service

_FORBIDDEN: Final[dict[int | str, dict[str, Any]]] = {
    403: {"model": ErrorAnswer, "description": "The gateway has no keys and is not on the loopback alone."},
    507: {"model": ErrorAnswer, "description": "The state folder cannot be written."},
}
_PUT: Final[dict[int | str, dict[str, Any]]] = {
    **_FORBIDDEN,
    400: {"model": ErrorAnswer, "description": "The body is no calibration."},
    409: {"model": ErrorAnswer, "description": "The calibration is one of another model."},
    503: {"model": ErrorAnswer, "description": "The model server is not there."},
}
_BODY: Final = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}


class CalibrationAnswer(BaseModel):
    """What decides where a call names no policy."""

    default_policy: str = Field(description='The name: strict, balanced, exploratory or "calibration".')
    accept: float
    review: float
    since: datetime = Field(description="UTC.")
    source: Source = Field(description="Who chose it: the gateway's settings, or a PUT.")
    changeable: bool = Field(description="Whether PUT and DELETE are allowed here.")
    calibration: dict[str, Any] | None = Field(description="The content of the calibration's file, where one decides.")
    warnings: list[str]


def make_calibration_routes(services: ModelServices) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["calibration"])

    async def describe(service: Service) -> CalibrationAnswer:
        own = service.own
        policy = own.policy
        decides = policy.policy if isinstance(policy, Calibration) else get_policy(policy)
        warnings = own.warnings(await service.manifest()) if isinstance(policy, Calibration) else ()
        try:
            own.check_allowed()
            changeable = True
        except RequestValueError:
            changeable = False
        return CalibrationAnswer(
            default_policy=service.default_policy,
            accept=decides.accept,
            review=decides.review,
            since=own.since,
            source=own.source,
            changeable=changeable,
            calibration=policy.to_json() if isinstance(policy, Calibration) else None,
            warnings=list(warnings),
        )

    @router.get("/v1/calibration", summary="What decides where a call names no policy")
    async def read(model: ModelQuery = None) -> CalibrationAnswer:
        """Say which thresholds decide, since when, and where they come from."""
        return await describe(await services.choose(model))

    @router.put("/v1/calibration", responses=_PUT, openapi_extra=_BODY, summary="Have a calibration decide")
    async def replace(request: Request, model: ModelQuery = None) -> CalibrationAnswer:
        """Take a calibration's file: it decides at once, and after a restart.

        It must be one of the served model. Each gateway has its own: send it to every replica. Each of several models
        has its own too.
        """
        service = await services.choose(model)
        await service.own.take(await request.body(), await service.manifest())
        return await describe(service)

    @router.delete("/v1/calibration", responses=_FORBIDDEN, summary="Have the settings decide again")
    async def remove(model: ModelQuery = None) -> CalibrationAnswer:
        """Forget the calibration that was put here; the gateway's settings decide again, at once."""
        service = await services.choose(model)
        await service.own.drop()
        return await describe(service)

    return router
