"""The routes of the REST API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Set
from typing import Final

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from lychee_server.gateway.calibration_routes import make_calibration_routes
from lychee_server.gateway.call_routes import make_call_routes
from lychee_server.gateway.dialects.description import describe_dialects
from lychee_server.gateway.experiments.feedback_route import make_feedback_routes
from lychee_server.gateway.experiments.running import RunningExperiment
from lychee_server.gateway.image_urls import ImageFetcher
from lychee_server.gateway.model_routes import make_model_routes
from lychee_server.gateway.model_services import ModelServices
from lychee_server.gateway.operation_routes import make_operation_routes
from lychee_server.gateway.settings import GatewaySettings

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})


def install_routes(
    app: FastAPI,
    settings: GatewaySettings,
    services: ModelServices,
    fetcher: ImageFetcher | None,
    experiment: RunningExperiment | None,
) -> None:
    """Add the routes to an app."""
    app.include_router(make_call_routes(settings, services, fetcher, experiment))
    app.include_router(make_feedback_routes(experiment, services.metrics, strict_fields=settings.strict_fields))
    app.include_router(make_model_routes(services))
    app.include_router(make_calibration_routes(services))
    app.include_router(make_operation_routes(services))
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
