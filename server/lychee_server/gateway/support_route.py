"""The route of the support bundle."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

from fastapi import FastAPI
from starlette.responses import Response

from lychee_server.gateway.service import Service
from lychee_server.support_bundle import write_bundle

__all__ = ["BUNDLE_PATH", "install_support_route"]

BUNDLE_PATH: Final = "/v1/support-bundle"
MEDIA_TYPE: Final = "application/zip"
FILE_NAME: Final = "lychee-support.zip"


def install_support_route(app: FastAPI, service: Service) -> None:
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
        write = partial(write_bundle, settings=service.settings, metrics=service.metrics.render()[0])
        async with one_at_a_time:
            content = await asyncio.to_thread(write)
        headers = {"content-disposition": f'attachment; filename="{FILE_NAME}"', "cache-control": "no-store"}
        return Response(content, headers=headers, media_type=MEDIA_TYPE)
