"""When the gateway exports spans, and what it says when it cannot."""

from __future__ import annotations

import logging
import sys

import pytest
from lychee_server.gateway.tracing.export import INSTALL, open_export

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin without what this machine may set."""
    for name in (ENDPOINT, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_SERVICE_NAME"):
        monkeypatch.delenv(name, raising=False)


def test_without_the_variables_nothing_is_exported_and_nothing_said(caplog: pytest.LogCaptureFixture) -> None:
    assert open_export() is None
    assert caplog.records == []


def test_without_the_extra_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, EXPORTER, None)
    assert open_export() is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert INSTALL in record.getMessage()


def test_another_protocol_than_http_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    assert open_export() is None
    (record,) = caplog.records
    assert "'grpc'" in record.getMessage()


def test_with_both_spans_are_made_and_closing_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:1")
    export = open_export()
    assert export is not None
    span = export.tracer.serve("GET", {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}, {})
    assert span.ids is not None
    assert (span.is_sampled, span.ids[0]) == (True, "ab" * 16)
    unsampled = export.tracer.serve("GET", {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-00"}, {})
    assert not unsampled.is_sampled
    export.close()
