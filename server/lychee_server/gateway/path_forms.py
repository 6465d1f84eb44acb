"""Middleware: the forms of a path that clients make of a base URL lead to the route that is meant.

A base URL that ends in a slash gives `//v1/rerank`, one that ends in /v1 gives `/v1/v1/rerank`, and some clients end
their paths with a slash.
"""

from __future__ import annotations

import re
from typing import Final

from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from lychee_server.gateway.refusals import local_path

PROGRAM_PREFIXES: Final = ("/v1/", "/v2/", "/metrics")
_SLASHES: Final = re.compile(r"/{2,}")
_VERSIONS: Final = re.compile(r"^(?:/v\d)+(?=/v\d/)")


class PathForms:
    """Gives a request the path of its route, before anything decides by it; the page's paths stay as they are.

    Args:
        app: The next application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http":
            path = local_path(scope)
            plain = plain_path(path)
            if plain != path and (is_for_programs(scope, plain) or plain in _own_paths(scope)):
                scope = {**scope, "path": scope["path"].removesuffix(path) + plain}
        await self._app(scope, receive, send)


def plain_path(path: str) -> str:
    """Return a path with single slashes, none at the end, and one version."""
    return _VERSIONS.sub("", _SLASHES.sub("/", path).rstrip("/") or "/")


def is_for_programs(scope: Scope, path: str) -> bool:
    """Say whether a path is one of the API: what a browser remembers must not open it."""
    return path.startswith(PROGRAM_PREFIXES) or path in scope["app"].openapi()["paths"]


def _own_paths(scope: Scope) -> set[str]:
    """Return the paths of the documentation and other plain routes."""
    return {route.path for route in scope["app"].routes if isinstance(route, Route)}
