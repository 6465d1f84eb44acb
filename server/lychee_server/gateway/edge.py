"""The edge of the gateway: everything that happens to a request before a route and after it.

From the outside in: pieces of large answers, form of the path, request id, span, log and counts, honesty, drain, API
key, size of the body. All of it is plain ASGI, so answers stream and a cancelled request is cancelled all the way down.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Final

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from lychee_server.gateway.access_log import AccessLog, RequestIds
from lychee_server.gateway.answer_pieces import AnswerPieces
from lychee_server.gateway.body_limit import BodyLimit
from lychee_server.gateway.draining import Drain, DrainMiddleware
from lychee_server.gateway.keys import ApiKeys
from lychee_server.gateway.metrics import Metrics
from lychee_server.gateway.path_forms import PathForms, is_for_programs
from lychee_server.gateway.refusals import local_path, refuse
from lychee_server.gateway.request_check import RequestCheck
from lychee_server.gateway.settings import GatewaySettings
from lychee_server.gateway.tracing.requests import RequestSpans, ServerTracer

OPEN_PATHS: Final = frozenset({"/", "/health", "/health/live", "/health/ready"})
OPEN_PREFIX: Final = "/page/"  # the files of the page, which hold no data: the page asks for a key itself
REALM: Final = "lychee-rerank"


def install_middleware(
    app: FastAPI, settings: GatewaySettings, metrics: Metrics, keys: ApiKeys, tracer: ServerTracer | None = None
) -> None:
    """Put the edge around an app; `app.state.drain` is then its Drain."""
    drain = Drain(metrics)
    app.state.drain = drain
    app.add_middleware(BodyLimit, max_request_mb=settings.max_request_mb, metrics=metrics)
    app.add_middleware(KeyCheck, keys=keys, metrics=metrics)
    app.add_middleware(DrainMiddleware, drain=drain)
    app.add_middleware(
        RequestCheck,
        host=settings.host,
        allowed_hosts=settings.allowed_hosts,
        is_open=not keys.required,
        metrics=metrics,
    )
    app.add_middleware(AccessLog, metrics=metrics, content=settings.log_content)
    if tracer is not None:
        app.add_middleware(RequestSpans, tracer=tracer)
    app.add_middleware(RequestIds)
    app.add_middleware(PathForms)
    app.add_middleware(AnswerPieces)


class KeyCheck:
    """Lets in who brings an API key; everyone, where the gateway has none.

    Programs and the page send `Authorization: Bearer KEY` or `x-api-key: KEY`. The documentation takes HTTP Basic too,
    as browsers ask for it: any user name, the key as password. Basic opens no path of the API and not `/metrics`, so
    that no foreign page can use what a browser remembers to call them. Only the health probes and the page's own files
    are open; Prometheus reads `/metrics` with a key of its own.

    Args:
        app: The next application.
        keys: The valid keys.
        metrics: Where refusals are counted.
    """

    def __init__(self, app: ASGIApp, *, keys: ApiKeys, metrics: Metrics) -> None:
        self._app = app
        self._keys = keys
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] not in ("http", "websocket") or not self._keys.required:
            await self._app(scope, receive, send)
            return
        path = local_path(scope)
        for_programs = is_for_programs(scope, path)
        candidates = list(_sent_keys(scope, with_basic=not for_programs))
        is_open = scope["type"] == "http" and (path in OPEN_PATHS or path.startswith(OPEN_PREFIX))
        if is_open or any(self._keys.accepts(key) for key in candidates):
            await self._app(scope, receive, send)
            return
        self._metrics.reject("unauthorized")
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        what = "the API key is not known here" if candidates else "no API key was sent"
        message = f"{what}; expected a header Authorization: Bearer KEY, or x-api-key: KEY"
        challenge = f'Bearer realm="{REALM}"' if for_programs else f'Basic realm="{REALM}", charset="UTF-8"'
        await refuse(send, 401, "unauthorized", message, headers={"www-authenticate": challenge})


def _sent_keys(scope: Scope, *, with_basic: bool) -> Iterator[str]:
    """Yield what the headers hold as a key."""
    for name, value in scope["headers"]:
        text = value.decode("latin-1").strip()
        if name == b"x-api-key":
            yield text
        elif name == b"authorization":
            scheme, _, credentials = text.partition(" ")
            if scheme.lower() == "bearer":
                yield credentials.strip()
            elif scheme.lower() == "basic" and with_basic:
                yield _password(credentials)


def _password(credentials: str) -> str:
    try:
        return base64.b64decode(credentials, validate=True).decode("utf-8", "replace").partition(":")[2]
    except binascii.Error:
        return ""
