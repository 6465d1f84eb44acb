"""Where the gateway's spans go: to the OTLP receiver that the standard variables name."""

from __future__ import annotations

import logging
import os
import threading
from importlib import metadata
from typing import TYPE_CHECKING, Final

from lychee_server.gateway.tracing.requests import ServerTracer
from lychee_server.otlp import ENDPOINT_VARIABLES, GATEWAY_SERVICE, find_foreign_protocol, find_traces_url

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

INSTALL: Final = "pip install 'lychee-rerank-server[otel]'"
FLUSH_S: Final = 5.0  # for the last spans, when the gateway stops

_logger = logging.getLogger(__name__)


class SpanExport:
    """Exports spans in the background.

    Args:
        provider: Makes the spans, samples and exports them.

    Attributes:
        tracer: Begins the spans of requests.
    """

    def __init__(self, provider: TracerProvider) -> None:
        from lychee_client.tracing.opentelemetry import OpenTelemetryTracer  # needs the extra

        self._provider = provider
        self.tracer: ServerTracer = OpenTelemetryTracer(provider)

    def close(self) -> None:
        """Export what is left, for FLUSH_S at most: a receiver that does not answer keeps no gateway from stopping."""
        flushing = threading.Thread(target=self._provider.shutdown, name="lychee-spans", daemon=True)
        flushing.start()
        flushing.join(FLUSH_S)


def open_export() -> SpanExport | None:
    """Begin to export, if the standard variables ask for it and the extra is installed; else None."""
    if find_traces_url(os.environ) is None:
        return None
    protocol = find_foreign_protocol(os.environ)
    if protocol is not None:
        _logger.warning("no traces: the protocol of OTLP is to be %r; expected http/protobuf, on port 4318", protocol)
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        names = " or ".join(ENDPOINT_VARIABLES)
        _logger.warning("no traces: %s is set, but %s is not installed; run %s", names, error.name, INSTALL)
        return None
    resource = Resource.create()  # reads OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        version = metadata.version("lychee-rerank-server")
        resource = resource.merge(Resource({SERVICE_NAME: GATEWAY_SERVICE, SERVICE_VERSION: version}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)  # reads OTEL_TRACES_SAMPLER
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))  # read OTEL_BSP_* and OTEL_EXPORTER_OTLP_*
    return SpanExport(provider)
