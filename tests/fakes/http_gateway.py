"""A gateway and other HTTP servers on the loopback, as scripts: what a path answers, and what was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = {
    "id": "fake-model",
    "object": "model",
    "owned_by": "lychee-rerank",
    "revision": "r1",
    "precision": "fp32",
    "execution": {"text_encoder": {"provider": "cpu", "precision": "fp32", "reason": ""}},
    "artifacts": {"tokenizer": "0" * 64},
    "family": "fake",
    "max_tokens": 512,
    "reads_instruction": False,
    "default_instruction": None,
    "max_img_size": None,
    "max_timeout_ms": 20000.0,
}


@dataclass(frozen=True)
class Asked:
    """One request that came in; the names of its headers are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True)
class Answer:
    """What a request is answered with: JSON, unless the content is bytes."""

    content: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


def refusal(status: int, kind: str, message: str = "the reason", **headers: str) -> Answer:
    """Return an error as a gateway writes it."""
    content: dict[str, Any] = {
        "message": message,
        "detail": message,
        "type": kind,
        "param": None,
        "request_id": "of-the-gateway",
    }
    content["error"] = {"message": message, "type": "invalid_request_error", "code": kind, "param": None}
    return Answer(content, status, {name.replace("_", "-"): value for name, value in headers.items()})


def rank(asked: Asked) -> Answer:
    """Rank by the lengths of texts: each character is a logit."""
    results = []
    for index, document in enumerate(asked.body["documents"]):
        logit = float(len(document)) if isinstance(document, str) else 0.0
        results.append(
            {
                "index": index,
                "relevance_score": 1 - 0.5**logit,
                "logit": logit,
                "decision": "accept",
                "modality": "text" if isinstance(document, str) else "image",
                "truncated": False,
            }
        )
    results.sort(key=lambda result: -result["logit"])
    return Answer(
        {
            "id": "an-id",
            "object": "rerank",
            "model": MODEL["id"],
            "results": results,
            "errors": [],
            "warnings": [],
            "usage": {"total_tokens": 9},
            "query": {"modality": "text", "truncated": False, "tokens": 3},
            "timings": {"total_ms": 2.0, "preprocess_ms": 0.5, "encode_query_ms": 0.25, "score_documents_ms": 1.0},
            "embedding_cache": {"hits": 0, "misses": 1},
        }
    )


class FakeGateway:
    """Answers as a gateway does; what `routes` has comes first, then what `anything` answers.

    Attributes:
        url: Where it listens.
        asked: All requests, in order.
        routes: What "METHOD /path" answers; tests change it.
        anything: What every other path answers; None takes the gateway's own answers.
    """

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[Asked] = []
        self.routes: dict[str, Answer | Callable[[Asked], Answer]] = {}
        self.anything: Answer | None = None
        self.own: dict[str, Answer | Callable[[Asked], Answer]] = {
            "GET /health/live": Answer({"status": "ok"}),
            "GET /health/ready": Answer({"status": "ok"}),
            "GET /v1/models": Answer({"object": "list", "data": [MODEL]}),
            "POST /v1/rerank": rank,
        }

    def answer(self, asked: Asked) -> Answer:
        """Note a request, and return its answer."""
        self.asked.append(asked)
        place = f"{asked.method} {asked.path}"
        own = self.own.get(place, refusal(404, "not_found"))
        answer = self.routes.get(place, own if self.anything is None else self.anything)
        return answer(asked) if callable(answer) else answer

    def paths(self) -> list[str]:
        """Return the paths that were asked for."""
        return [asked.path for asked in self.asked]

    @contextmanager
    def run(self) -> Iterator[FakeGateway]:
        """Listen on a free port."""
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def handle_one(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                headers = {name.lower(): value for name, value in self.headers.items()}
                answer = fake.answer(Asked(self.command, self.path, headers, json.loads(body) if body else None))
                content = answer.content if isinstance(answer.content, bytes) else json.dumps(answer.content).encode()
                try:
                    self.send_response(answer.status)
                    for name, value in {"Content-Length": str(len(content)), **answer.headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:  # the client has gone
                    self.close_connection = True

            do_GET = do_POST = handle_one  # noqa: N815

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            self.url = f"http://127.0.0.1:{server.server_address[1]}"
            yield self
            server.shutdown()
            thread.join()
