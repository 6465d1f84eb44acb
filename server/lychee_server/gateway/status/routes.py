"""The routes of the status."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import APIRouter

from lychee_server.gateway.answer_schemas import ErrorAnswer
from lychee_server.gateway.metrics import Metrics
from lychee_server.gateway.model_services import ModelServices
from lychee_server.gateway.request_schemas import ModelQuery
from lychee_server.gateway.status.answer import GoldenState, StatusAnswer
from lychee_server.gateway.status.golden import GoldenReplay
from lychee_server.gateway.status.recent_errors import RecentErrors
from lychee_server.gateway.status.report import collect_status

SAMPLE_S: Final = 1.0  # how often the queue is looked at, besides whenever a call gets its turn


def make_status_routes(services: ModelServices, errors: RecentErrors) -> APIRouter:
    """Return the routes; while the application lives, `watching` must run."""
    router = APIRouter(tags=["operation"])
    replays = {service.name: GoldenReplay(service.health) for service in services}

    @router.get("/v1/status", summary="How gateway and Triton are, and were")
    async def status(model: ModelQuery = None) -> StatusAnswer:
        """Tell what executes each model, the traffic of the last 15 minutes, the last errors, golden pairs, settings.

        Traffic, series and errors are those of the process that answers: several gateways behind one address count each
        for itself.
        """
        return await collect_status(await services.choose(model), errors)

    @router.post(
        "/v1/golden-pairs",
        responses={
            429: {"model": ErrorAnswer, "description": "They are being replayed, or were a moment ago."},
            503: {"model": ErrorAnswer, "description": "Triton or a model is away."},
        },
        summary="Replay the golden pairs now",
    )
    async def golden_pairs(model: ModelQuery = None) -> GoldenState:
        """Have the served model score the pairs whose scores are known, and compare. One replay at a time."""
        return await replays[(await services.choose(model)).name].run()

    return router


@asynccontextmanager
async def watching(metrics: Metrics, errors: RecentErrors) -> AsyncIterator[None]:
    """Remember errors and the queue for the length of the body."""
    sampling = asyncio.create_task(_sample(metrics), name="gateway-queue")
    try:
        with errors.listening():
            yield
    finally:
        sampling.cancel()


async def _sample(metrics: Metrics) -> None:
    while True:
        metrics.note_queues()
        await asyncio.sleep(SAMPLE_S)
