"""Middleware: an id, a line in the log and a count for every request, and an answer to what nobody foresaw."""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lychee_server.gateway.call_notes import CallNotes, open_notes
from lychee_server.gateway.metrics import Metrics
from lychee_server.gateway.refusals import header, refuse
from lychee_server.gateway.request_ids import REQUEST_ID_HEADER, accept_request_id, use_request_id

PAGE_FILES_ROUTE: Final = "page"
NO_ROUTE: Final = "none"
WARNINGS_HEADER: Final = "x-lychee-warnings"
IGNORED_HEADER: Final = "x-lychee-ignored"
RANKING_HEADER: Final = "x-lychee-ranking-id"
CLIENT_GONE: Final = 499  # as nginx calls it
QUIET_ROUTES: Final = frozenset(
    {PAGE_FILES_ROUTE, "/metrics", "/v1/status", "/health", "/health/live", "/health/ready"}
)

_logger = logging.getLogger("lychee_server.access")


class RequestIds:
    """Gives every request its id, for the answer, the log and Triton; a well-formed one of the caller stays."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request_id = accept_request_id(header(scope, REQUEST_ID_HEADER.encode()))

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                fields = [field for field in message.get("headers", ()) if field[0].lower() != b"x-request-id"]
                message = {**message, "headers": [*fields, (REQUEST_ID_HEADER.encode(), request_id.encode())]}
            await send(message)

        with use_request_id(request_id):
            await self._app(scope, receive, send_with_id)


class AccessLog:
    """Logs and counts every request, and answers 500 where the app failed without an answer.

    Successful requests for the page's files, for status, health and metrics are logged at level DEBUG, errors of
    callers and probes that fail at WARNING, our own errors at ERROR, everything else at INFO.

    Args:
        app: The next application.
        metrics: Where requests are counted.
        content: Whether to log the texts of calls.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, content: bool) -> None:
        self._app = app
        self._metrics = metrics
        self._content = content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        own_app = scope.get("app")
        notes = open_notes()
        answer = _Answer(send, notes)
        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, answer.send)
        except Exception as error:
            answer.error = error
            if answer.status is None:
                message = "the gateway failed; the log tells more under this request's id"
                await refuse(answer.send, 500, "internal_error", message, close=True)
        finally:
            self._metrics.in_flight.dec()
            route = _route(scope, own_app)
            status = CLIENT_GONE if answer.status is None else answer.status
            self._metrics.observe_request(
                route, status, notes.modality, answer.seconds, method=scope["method"], model=notes.label
            )
            fields = {
                "route": route,
                "method": scope["method"],
                "status": status,
                "latency_ms": round(1e3 * answer.seconds, 1),
                "client": (scope.get("client") or ("",))[0],
                **notes.fields(content=self._content),
            }
            _log(route, status, fields, answer.error)


def _route(scope: Scope, own_app: Any) -> str:
    """Return the template of the route that took the request, never the path that was sent."""
    if "route" not in scope:
        return NO_ROUTE
    template: str = getattr(scope["route"], "path", "")
    return template if template and scope.get("app") is own_app else PAGE_FILES_ROUTE


class _Answer:
    """Looks at what is sent, and puts into a header what was ignored and how many warnings there are."""

    def __init__(self, send: Send, notes: CallNotes) -> None:
        self.status: int | None = None
        self.error: Exception | None = None
        self._send = send
        self._notes = notes
        self._began_at_s = time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall time so far."""
        return time.monotonic() - self._began_at_s

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            told = {
                WARNINGS_HEADER: str(self._notes.warnings or ""),
                IGNORED_HEADER: self._notes.ignored,
                RANKING_HEADER: self._notes.ranking_id or "",
            }
            fields = [(name.encode(), value.encode()) for name, value in told.items() if value]
            message = {**message, "headers": [*message.get("headers", ()), *fields]}
        await self._send(message)


def _log(route: str, status: int, fields: dict[str, Any], error: Exception | None) -> None:
    if (status >= 500 and route not in QUIET_ROUTES) or error is not None:
        level = logging.ERROR
    elif status >= 400:
        level = logging.WARNING
    else:
        level = logging.DEBUG if route in QUIET_ROUTES else logging.INFO
    _logger.log(level, "request", exc_info=error, extra={"fields": fields})
