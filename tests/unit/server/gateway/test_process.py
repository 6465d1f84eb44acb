"""What is read of a gateway in another process."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from lychee_server.gateway.process import read_problem


@pytest.mark.parametrize(
    ("status", "answer", "problem"),
    [
        (200, {"status": "ok"}, None),
        (200, {"status": "degraded", "reason": "b: starting: it loads", "models": {}}, "b: starting: it loads"),
        (503, {"status": "unavailable", "reason": "unavailable: it is gone"}, "unavailable: it is gone"),
        (500, {}, "it answers with status 500"),
    ],
)
def test_a_gateway_is_ready_with_all_its_models(status: int, answer: dict[str, object], problem: str | None) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/health/ready"
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        server.timeout = 30
        thread.start()
        assert read_problem("127.0.0.1", server.server_port) == problem
        thread.join()
