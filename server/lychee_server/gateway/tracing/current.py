"""The span of the request that is being answered here. Outside of one, and where nothing is traced, a silent one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from lychee_client.tracing import Span, Tracer
from lychee_client.tracing.spans import SILENT

_CURRENT: ContextVar[Span] = ContextVar("lychee_gateway_span", default=SILENT)


def current_span() -> Span:
    """Return the span of the request."""
    return _CURRENT.get()


@contextmanager
def use_span(span: Span) -> Iterator[None]:
    """Make this the span of the request for the body."""
    token = _CURRENT.set(span)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def stage(name: str) -> Span:
    """Begin the span of a part of the request; `with` ends it."""
    span = _CURRENT.get()
    return span.begin(name) if span.is_sampled else SILENT


def exemplar() -> dict[str, str] | None:
    """Return what leads from a metric to the trace; None where nobody will see it."""
    span = _CURRENT.get()
    if not span.is_sampled or span.ids is None:
        return None
    trace_id, span_id = span.ids
    return {"trace_id": trace_id, "span_id": span_id}


class _RequestTracer:
    """Makes the spans of a client's calls parts of the request."""

    def begin(self, name: str) -> Span:
        """See Tracer."""
        return stage(name)


REQUEST_TRACER: Final[Tracer] = _RequestTracer()
