"""The page, which takes seconds to import, behind a REST API that is there at once."""

from __future__ import annotations

import asyncio
import importlib
import logging
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from fastapi import FastAPI
from lychee_client import LycheeError
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from lychee_server.errors import SettingsError
from lychee_server.gateway.refusals import refuse

if TYPE_CHECKING:
    from lychee_server.gateway.service import Service

NEEDED: Final = ("gradio", "jinja2", "lychee_evaluate", "markupsafe", "lychee_server.web.page")
WAIT_S: Final = 30.0
CHECK_S: Final = 3.0
RETRY_AFTER_S: Final = 5

_logger = logging.getLogger("lychee_server.gateway")


class LatePage:
    """Answers for the page; whoever comes before it is there waits for it.

    Args:
        service: The service that the page calls.

    Raises:
        SettingsError: A package that the page needs is missing.
    """

    def __init__(self, service: Service) -> None:
        for name in NEEDED:
            if find_spec(name) is None:
                raise SettingsError(
                    f"the web page needs the package {name}, which is not installed; run "
                    "`pip install 'lychee-rerank-server[web]'`, or start with --no-web"
                )
        self._service = service
        self._page: ASGIApp | None = None
        self._is_settled = asyncio.Event()

    async def run(self) -> None:
        """Build the page once the model was checked, so that neither slows the other, or is away; keep it."""
        with suppress(LycheeError):
            await self._service.health.require(CHECK_S)
        try:
            await asyncio.to_thread(self._import_page)
            built = self._build_page()  # in the loop: outside of one, Gradio makes loops and never closes them
            mount = built.routes[-1]
            assert isinstance(mount, Mount)
            async with built.router.lifespan_context(built):
                self._page = mount.app
                self._is_settled.set()
                await asyncio.Event().wait()
        except Exception:
            _logger.exception("the page cannot be served")
        finally:
            self._is_settled.set()

    @staticmethod
    def _import_page() -> None:
        """Import what takes seconds; again where Python lost count, as another thread parsed something meanwhile.

        Source: https://github.com/python/cpython/issues/106905, still so in 3.11.7.
        """
        for tries_left in (2, 1, 0):
            try:
                importlib.import_module("lychee_server.web.page")
                return
            except SystemError:
                if not tries_left:
                    raise

    def _build_page(self) -> FastAPI:
        """Return an application whose last route is the page."""
        from lychee_server.web.page import mount_page  # was imported before

        return mount_page(FastAPI(), self._service)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        with suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S):
                await self._is_settled.wait()
        if self._page is not None:
            await self._page(scope, receive, send)
        elif scope["type"] == "http":
            retry = {"retry-after": str(RETRY_AFTER_S)}
            await refuse(send, 503, "unavailable", "the page is not there yet; see the gateway's log", headers=retry)
