"""Middleware: a span for every request, except for those that only watch the gateway.

Source: https://opentelemetry.io/docs/specs/semconv/http/http-spans/ (HTTP server, version 1.44). `url.path` and
`url.query` are left out: they are what the caller sent. The route's template says what was asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from lychee_client.tracing import Span
from lychee_client.tracing.spans import Attributes
from starlette.types import ASGIApp, Receive, Scope, Send

from lychee_server.gateway.call_notes import CallNotes
from lychee_server.gateway.refusals import local_path
from lychee_server.gateway.request_ids import current_request_id
from lychee_server.gateway.tracing.current import current_span, use_span

QUIET_PATHS: Final = frozenset({"/", "/metrics", "/v1/status", "/health", "/health/live", "/health/ready"})
QUIET_PREFIXES: Final = ("/page/", "/docs")
METHODS: Final = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
NO_ROUTE: Final = "none"  # where no route took a request
OTHER_METHOD: Final = "_OTHER"
FIRST_ERROR: Final = 500  # of the statuses: below, the caller made the mistake


class ServerTracer(Protocol):
    """Begins the spans of requests; see OpenTelemetryTracer."""

    def serve(self, name: str, headers: Mapping[str, str], attributes: Attributes) -> Span:
        """Begin the span of a request that came to a server."""


class RequestSpans:
    """Gives every request its span, as a part of the caller's; see `describe_request`.

    Args:
        app: The next application.
        tracer: Begins the spans.
    """

    def __init__(self, app: ASGIApp, *, tracer: ServerTracer) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http" or _is_quiet(local_path(scope)):
            await self._app(scope, receive, send)
            return
        method = _known_method(scope)
        attributes: dict[str, Any] = {
            "http.request.method": method,
            "url.scheme": scope.get("scheme", "http"),
            "network.protocol.version": scope.get("http_version", "1.1"),
            "lychee.request_id": current_request_id() or "",
        }
        span = self._tracer.serve(_verb(method), _read_headers(scope), attributes)
        with use_span(span), span:
            await self._app(scope, receive, send)


def describe_request(route: str, scope: Scope, status: int, notes: CallNotes, error: Exception | None) -> None:
    """Tell the span of a request what became of it.

    Args:
        route: The template of the route that took it.
        scope: The request; see ASGI.
        status: The status of the answer.
        notes: What is known of the call.
        error: What the gateway failed with; None: it did not.
    """
    span = current_span()
    if not span.is_sampled:
        return
    counts = {"documents": notes.documents, "errors": notes.errors, "warnings": notes.warnings}
    model = {"model.name": notes.served, "model.id": notes.model, "model.version": notes.version}
    words = {"modality": notes.modality, "dialect": notes.dialect}
    known = {f"lychee.{name}": value for name, value in {**counts, **model, **words}.items() if value is not None}
    span.add({"http.response.status_code": status, **known})
    if route != NO_ROUTE:
        span.add({"http.route": route})
        span.rename(f"{_verb(_known_method(scope))} {route}")
    if status >= FIRST_ERROR or error is not None:
        span.fail(notes.error_type or (str(status) if error is None else type(error).__name__))


def _is_quiet(path: str) -> bool:
    return path in QUIET_PATHS or path.startswith(QUIET_PREFIXES)


def _known_method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in METHODS else OTHER_METHOD


def _verb(method: str) -> str:
    return "HTTP" if method == OTHER_METHOD else method


def _read_headers(scope: Scope) -> dict[str, str]:
    """Return the headers that tell of the caller's span."""
    found: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        text = name.decode("latin-1").lower()
        found.setdefault(text, []).append(value.decode("latin-1"))
    return {name: ",".join(values) for name, values in found.items()}
