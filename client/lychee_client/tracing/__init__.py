"""What calls tell of themselves while they run: the protocol of a tracer, and OpenTelemetry behind it.

Importing this needs nothing; `lychee_client.tracing.opentelemetry` needs the package opentelemetry-api.
"""

from lychee_client.tracing.spans import Span, Tracer

__all__ = ["Span", "Tracer"]
