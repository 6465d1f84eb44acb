"""What the standard variables of OpenTelemetry switch on."""

from __future__ import annotations

import pytest
from lychee_server.otlp import find_foreign_protocol, find_traces_url
from lychee_server.triton_tracing import trace_environment, trace_options

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318/"}


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({}, None),
        (ENDPOINT, "http://collector:4318/v1/traces"),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://own/x"}, "http://own/x"),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "True"}, None),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, None),
    ],
)
def test_where_traces_go(variables: dict[str, str], url: str | None) -> None:
    assert find_traces_url(variables) == url
    assert bool(trace_options(variables)) == (url is not None)


@pytest.mark.parametrize(
    ("variables", "foreign"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, None),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "grpc"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}, None),
    ],
)
def test_only_http_is_spoken(variables: dict[str, str], foreign: str | None) -> None:
    assert find_foreign_protocol(variables) == foreign
    assert bool(trace_options({**ENDPOINT, **variables})) == (foreign is None)


def test_triton_writes_down_times_and_no_tensors_under_a_name_of_its_own() -> None:
    options = trace_options({**ENDPOINT, "OTEL_SERVICE_NAME": "search"})
    assert "--trace-config=level=TIMESTAMPS" in options
    assert "--trace-config=opentelemetry,resource=service.name=search-triton" in options
    assert trace_environment(ENDPOINT)
    assert trace_environment({}) == {}
