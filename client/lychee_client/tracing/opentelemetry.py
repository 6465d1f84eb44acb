"""Spans for OpenTelemetry. It needs the package opentelemetry-api; who exports them is the program's business."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from types import TracebackType
from typing import Final

from opentelemetry import context as contexts
from opentelemetry import propagate, trace

from lychee_client.tracing.spans import GIVEN_UP, NOTHING, Attributes, Kind, Span

SCOPE: Final = "lychee_client"
DISTRIBUTION: Final = "lychee-rerank-client"
ERROR_TYPE: Final = "error.type"
_KINDS: Final[Mapping[Kind, trace.SpanKind]] = {"internal": trace.SpanKind.INTERNAL, "client": trace.SpanKind.CLIENT}


class OpenTelemetryTracer:
    """Makes the spans of calls parts of the span that is current where the call is made.

    Args:
        provider: Where the spans go; None takes the program's own, as it is when the first span begins.
    """

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer(SCOPE, metadata.version(DISTRIBUTION), provider)

    def begin(self, name: str) -> OpenTelemetrySpan:
        """See Tracer."""
        context = contexts.get_current()
        return OpenTelemetrySpan(self._tracer, self._tracer.start_span(name, context), context)

    def serve(self, name: str, headers: Mapping[str, str], attributes: Attributes) -> OpenTelemetrySpan:
        """Begin the span of a request that came to a server.

        Args:
            name: The name of the span.
            headers: The headers of the request, their names in small letters: the caller's span is in them, perhaps.
            attributes: What is known of it at the beginning, when it is decided whether it is sampled.
        """
        context = propagate.extract(headers, contexts.Context())
        span = self._tracer.start_span(name, context, trace.SpanKind.SERVER, dict(attributes))
        return OpenTelemetrySpan(self._tracer, span, context)


class OpenTelemetrySpan:
    """See Span.

    Args:
        tracer: Begins its parts.
        span: The span.
        context: What it is part of; baggage stays with it.
    """

    __slots__ = ("_context", "_span", "_tracer", "is_sampled")

    def __init__(self, tracer: trace.Tracer, span: trace.Span, context: contexts.Context) -> None:
        self._tracer = tracer
        self._span = span
        self._context = trace.set_span_in_context(span, context)
        self.is_sampled = span.get_span_context().trace_flags.sampled

    @property
    def ids(self) -> tuple[str, str] | None:
        """See Span."""
        own = self._span.get_span_context()
        return (trace.format_trace_id(own.trace_id), trace.format_span_id(own.span_id)) if own.is_valid else None

    def begin(self, name: str, kind: Kind = "internal", attributes: Attributes = NOTHING) -> Span:
        """See Span."""
        span = self._tracer.start_span(name, self._context, _KINDS[kind], dict(attributes))
        return OpenTelemetrySpan(self._tracer, span, self._context)

    def rename(self, name: str) -> None:
        """See Span."""
        self._span.update_name(name)

    def add(self, attributes: Attributes) -> None:
        """See Span."""
        self._span.set_attributes(dict(attributes))

    def fail(self, error: str) -> None:
        """See Span."""
        self._span.set_attribute(ERROR_TYPE, error)
        self._span.set_status(trace.StatusCode.ERROR)

    def end(self) -> None:
        """See Span."""
        self._span.end()

    def headers(self) -> Mapping[str, str]:
        """See Span."""
        carrier: dict[str, str] = {}
        propagate.inject(carrier, self._context)
        return carrier

    def __enter__(self) -> OpenTelemetrySpan:
        """See Span."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """See Span."""
        if isinstance(error, Exception):
            self.fail(type(error).__name__)
        elif error is not None:  # cancelled, or closed
            self.add({GIVEN_UP: True})
        self.end()
