"""Triton's own traces, switched on by the standard variables of OpenTelemetry.

Triton 2.51 takes part in every trace that a request tells it of, sampled or not, and begins further ones of its own at
its rate. So it has none, and callers tell it of sampled traces alone: what they sample, it samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from lychee_server.otlp import SERVICE_NAME_VARIABLE, TRITON_SERVICE, find_foreign_protocol, find_traces_url

NO_RATE: Final = 0  # no traces but those that callers tell of
TIMEOUT_VARIABLE: Final = "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"
# Triton ends only after its last export. With its own 10 s, and a receiver that does not answer, it took 18 s to stop.
TIMEOUT: Final = "2s"


def trace_options(environ: Mapping[str, str]) -> list[str]:
    """Return Triton's options; none where nothing shall be exported.

    Timestamps alone: Triton's traces of tensors would hold what callers sent.
    """
    url = find_traces_url(environ)
    if url is None or find_foreign_protocol(environ) is not None:
        return []
    name = environ.get(SERVICE_NAME_VARIABLE, "").strip()
    service = f"{name}-triton" if name else TRITON_SERVICE
    return [
        "--trace-config=mode=opentelemetry",
        f"--trace-config=opentelemetry,url={url}",
        f"--trace-config=opentelemetry,resource=service.name={service}",
        f"--trace-config=rate={NO_RATE}",
        "--trace-config=level=TIMESTAMPS",
    ]


def trace_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what else Triton is told by variables: Python reads a number as seconds, and Triton as milliseconds."""
    return {TIMEOUT_VARIABLE: TIMEOUT} if trace_options(environ) else {}
