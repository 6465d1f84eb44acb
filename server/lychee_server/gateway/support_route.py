"""The route of the support bundle."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from functools import partial
from typing import Any, Final

from fastapi import FastAPI
from lychee_client import LycheeError
from starlette.responses import Response

from lychee_server.doctor.bundle import write_bundle
from lychee_server.gateway.model_services import ModelServices
from lychee_server.gateway.service import Service
from lychee_server.gateway.settings import GatewaySettings
from lychee_server.gateway.status.report import describe_settings

__all__ = ["BUNDLE_PATH", "install_support_route"]

BUNDLE_PATH: Final = "/v1/support-bundle"
MEDIA_TYPE: Final = "application/zip"
FILE_NAME: Final = "lychee-support.zip"
ANSWER_TIMEOUT_S: Final = 5.0  # of Triton, which may be what is broken


def install_support_route(app: FastAPI, settings: GatewaySettings, services: ModelServices) -> None:
    """Add the route to an app."""
    one_at_a_time = asyncio.Lock()

    @app.get(
        BUNDLE_PATH,
        tags=["operation"],
        response_class=Response,
        responses={200: {"content": {MEDIA_TYPE: {}}, "description": "A ZIP file."}},
        summary="What somebody else needs to see what is wrong",
    )
    async def support_bundle() -> Response:
        """Collect versions, settings, manifest, configurations, statistics, metrics and the ends of the logs.

        No query, document, image or key is among them.
        """
        async with one_at_a_time:
            served = await _describe_all(services)
            metrics = services.metrics.render()[0]
            write = partial(write_bundle, settings=settings, metrics=metrics, served=served)
            content = await asyncio.to_thread(write)
        headers = {"content-disposition": f'attachment; filename="{FILE_NAME}"', "cache-control": "no-store"}
        return Response(content, headers=headers, media_type=MEDIA_TYPE)


async def _describe_all(services: ModelServices) -> dict[str, Any]:
    """Return what is to be told of each model by its name; of a single one, that alone."""
    told = await asyncio.gather(*(_describe_served(service) for service in services))
    if not services.is_several:
        return told[0]
    shown = {service.name: [each.model_dump() for each in describe_settings(service.settings)] for service in services}
    return {
        service.name: {"settings": shown[service.name], **each} for service, each in zip(services, told, strict=True)
    }


async def _describe_served(service: Service) -> dict[str, Any]:
    """Return what Triton says of its models, or why it says nothing."""
    health = {"state": service.health.state, "reason": service.health.reason}
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            status = await service.server_status()
            timings = await service.model_timings()
    except (LycheeError, TimeoutError) as error:
        return {"health": health, "problem": f"{type(error).__name__}: {error}"}
    return {
        "health": health,
        "status": asdict(status),
        "timings": {name: asdict(each) for name, each in timings.items()},
    }
