"""A receiver of traces, OTLP over HTTP, as collectors are: protobuf from Python, JSON from Triton."""

from __future__ import annotations

import base64
import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

WAIT_S = 60.0
IDS = ("traceId", "spanId", "parentSpanId")


@dataclass(frozen=True)
class ReceivedSpan:
    """One span, as it was exported."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    is_error: bool
    attributes: dict[str, Any]
    events: tuple[str, ...]


@dataclass
class OtlpReceiver:
    """What has come so far.

    Attributes:
        port: Where it listens.
        bodies: Every byte of every request.
        headers: The headers of every request.
        answers: Cleared, it lets its callers wait; they get no answer before it is set.
    """

    port: int = 0
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    answers: threading.Event = field(default_factory=threading.Event)

    @property
    def endpoint(self) -> str:
        """The value of OTEL_EXPORTER_OTLP_ENDPOINT."""
        return f"http://127.0.0.1:{self.port}"

    def spans(self, trace_id: str | None = None) -> list[ReceivedSpan]:
        """Return the spans of one trace, or of all."""
        found = [span for body in list(self.bodies) for span in _read(body)]
        return [span for span in found if trace_id in (None, span.trace_id)]

    def wait_for(self, is_enough: Callable[[list[ReceivedSpan]], bool], trace_id: str | None = None) -> None:
        """Wait until the spans are enough."""
        deadline_s = time.monotonic() + WAIT_S
        while not is_enough(self.spans(trace_id)):
            assert time.monotonic() < deadline_s, "\n".join(map(str, self.spans(trace_id)))
            time.sleep(0.05)


def tree(spans: list[ReceivedSpan], parent_id: str) -> dict[str, Any]:
    """Return what lies below a span: names, and below each of them the same."""
    below: dict[str, Any] = {}
    for span in spans:
        if span.parent_id == parent_id:
            below.setdefault(span.name, {}).update(tree(spans, span.span_id))
    return below


@contextmanager
def receive_traces() -> Iterator[OtlpReceiver]:
    """Listen on a free port of the loopback."""
    receiver = OtlpReceiver()
    receiver.answers.set()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            receiver.answers.wait(WAIT_S)
            receiver.headers.append({name.lower(): value for name, value in self.headers.items()})
            receiver.bodies.append(body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:  # who sent it waits no longer
                return

        def log_message(self, format: str, *args: object) -> None:
            return

    class Server(ThreadingHTTPServer):
        request_queue_size = 128  # Triton gives up what is not taken within two seconds

    server = Server(("127.0.0.1", 0), Handler)
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.answers.set()
        server.shutdown()
        thread.join(WAIT_S)
        server.server_close()


def _read(body: bytes) -> Iterator[ReceivedSpan]:
    request = ExportTraceServiceRequest()
    if body.startswith(b"{"):
        ParseDict(_to_protobuf(json.loads(body)), request)
    else:
        request.ParseFromString(body)
    for resource in request.resource_spans:
        names = {each.key: each.value.string_value for each in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield ReceivedSpan(
                    names.get("service.name", ""),
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.kind,
                    span.status.code == span.status.STATUS_CODE_ERROR,
                    {each.key: _value(each.value) for each in span.attributes},
                    tuple(event.name for event in span.events),
                )


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return None if kind is None else getattr(value, kind)


def _to_protobuf(request: dict[str, Any]) -> dict[str, Any]:
    """Write ids as protobuf's JSON has bytes: OTLP's has them as hexadecimal digits."""
    for resource in request["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for name in IDS:
                    if name in span:
                        span[name] = base64.b64encode(bytes.fromhex(span[name])).decode()
    return request
