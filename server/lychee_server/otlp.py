"""Where traces go, as the standard variables of OpenTelemetry say.

Source: https://opentelemetry.io/docs/specs/otel/protocol/exporter/ and
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

ENDPOINT_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOL_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
SERVICE_NAME_VARIABLE: Final = "OTEL_SERVICE_NAME"
GATEWAY_SERVICE: Final = "lychee-gateway"
TRITON_SERVICE: Final = "lychee-triton"
_TRACES_PATH: Final = "v1/traces"
_HTTP_PROTOCOLS: Final = frozenset({"", "http/protobuf", "http/json"})


def find_traces_url(environ: Mapping[str, str]) -> str | None:
    """Return the URL that takes traces; None where nothing shall be exported."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return None
    own, common = (environ.get(name, "").strip() for name in ENDPOINT_VARIABLES)
    if own or not common:
        return own or None
    return f"{common.rstrip('/')}/{_TRACES_PATH}"


def find_foreign_protocol(environ: Mapping[str, str]) -> str | None:
    """Return the protocol that is asked for if it is not OTLP over HTTP, the only one that is spoken; else None."""
    named = next((value for name in PROTOCOL_VARIABLES if (value := environ.get(name, "").strip().lower())), "")
    return None if named in _HTTP_PROTOCOLS else named
