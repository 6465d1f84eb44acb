"""The gateway's application: REST, documentation, health, metrics and the page on one port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata
from typing import Final

from fastapi import FastAPI, Security
from fastapi.security import APIKeyHeader
from fastapi_offline import FastAPIOffline

from lychee_server import web
from lychee_server.errors import SettingsError
from lychee_server.gateway.cache import make_cache
from lychee_server.gateway.edge import install_middleware
from lychee_server.gateway.errors import install_error_handlers
from lychee_server.gateway.experiments.running import RunningExperiment
from lychee_server.gateway.image_urls import ImageFetcher
from lychee_server.gateway.keys import ApiKeys
from lychee_server.gateway.metrics import Metrics
from lychee_server.gateway.model_services import ModelServices
from lychee_server.gateway.restarts import RestartsCollector
from lychee_server.gateway.routes import install_routes, refuse_other_methods
from lychee_server.gateway.service import DISTRIBUTION, Service
from lychee_server.gateway.settings import GatewaySettings
from lychee_server.gateway.status.recent_errors import RecentErrors
from lychee_server.gateway.status.routes import make_status_routes, watching
from lychee_server.gateway.support_route import install_support_route
from lychee_server.gateway.tracing.export import open_export

DESCRIPTION: Final = (
    "Score pairs of a query and a document (text, image, or both) from 0 to 1, rank documents, and decide. "
    "Status 422 means that the JSON has another shape than shown here, 400 that a value cannot be used. "
    "Where the gateway has API keys, every request sends `Authorization: Bearer KEY` or `x-api-key: KEY`."
)

# FastAPI's own spans hold the query of the URL, and its records of errors what was sent. Ours do not; see tracing/.
NO_TELEMETRY: Final = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}


def create_app(settings: GatewaySettings, *, service: Service | ModelServices | None = None) -> FastAPI:
    """Make the application; `app.state.services` are its services, and `app.state.service` is the default one.

    Args:
        settings: The settings of the gateway.
        service: A service in place of those that the settings ask for, or several; the app starts and closes them.

    Raises:
        SettingsError: A setting cannot be used, or the page is asked for and a package that it needs is missing.
    """
    if settings.web and not web.is_installed():
        raise SettingsError(
            f"the web page needs {web.NEEDED}, which is not installed; run `{web.INSTALL}`, or start with --no-web"
        )
    keys = ApiKeys.load(settings)
    cache = None
    if service is None:
        cache, metrics = make_cache(settings), Metrics()
        services = ModelServices.load(settings, cache, metrics)
        if cache is not None:
            metrics.watch_cache(cache)
    else:
        services = service if isinstance(service, ModelServices) else ModelServices.of(service)
        metrics = services.metrics
    metrics.registry.register(RestartsCollector())
    experiment = None if settings.experiment is None else RunningExperiment.load(settings.experiment, metrics)
    if experiment is not None:
        experiment.bind(services)
    fetcher = ImageFetcher(settings.image_hosts, metrics=metrics) if settings.image_hosts else None

    spans = open_export()
    log_errors = RecentErrors()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await services.start()
        try:
            async with watching(metrics, log_errors):
                yield
        finally:
            if experiment is not None:
                await experiment.stop_shadow()
            await services.aclose()
            if fetcher is not None:
                await fetcher.aclose()
            if experiment is not None:
                await asyncio.to_thread(experiment.close)
            if cache is not None:
                await asyncio.to_thread(cache.close)
            if spans is not None:
                await asyncio.to_thread(spans.close)

    app = FastAPIOffline(  # with the page's scripts, which FastAPI would have browsers load from another host
        title="lychee-rerank",
        description=DESCRIPTION,
        version=metadata.version(DISTRIBUTION),
        static_url="/docs/static",
        swagger_ui_parameters={"validatorUrl": None},  # or a button would send the description to another host
        redoc_url=None,
        # Only for the page's button "Authorize": KeyCheck stands before all routes.
        dependencies=[Security(APIKeyHeader(name="x-api-key", auto_error=False))] if keys.required else [],
        lifespan=lifespan,
        telemetry=NO_TELEMETRY,
    )
    app.state.services, app.state.service = services, services.default
    app.state.experiment = experiment
    install_routes(app, settings, services, fetcher, experiment)
    app.include_router(make_status_routes(services, log_errors))
    install_support_route(app, settings, services)
    if settings.web:
        from lychee_server.web import calibration_routes, page, table_routes  # what they need is an extra

        table_routes.install(app)
        calibration_routes.install(app, services)
        page.install(app, settings.root_path)
    install_error_handlers(app)
    install_middleware(app, settings, metrics, keys, None if spans is None else spans.tracer)
    refuse_other_methods(app)

    if settings.web:
        return app

    @app.get("/", include_in_schema=False)
    async def root() -> dict[str, str]:
        return {
            "name": app.title,
            "version": app.version,
            "documentation": f"{settings.root_path}/docs",
            "health": f"{settings.root_path}/health",
        }

    return app
