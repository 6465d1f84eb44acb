"""Large JSON bodies, read without holding up everyone else."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any, Final

from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response

MAX_DEPTH: Final = 200  # of one document; pydantic writes 255
_ANYTHING: Final[TypeAdapter[Any]] = TypeAdapter(Any)


def parse_json(body: bytes) -> Any:
    """Return what a body holds; as json.loads, but 8 images of 2 MB take 3 ms of the event loop and not 50.

    Raises:
        json.JSONDecodeError: It is no JSON.
    """
    try:
        return _ANYTHING.validate_json(body)
    except ValueError:  # not all that it refuses is wrong: json.loads reads UTF-16 and lone surrogates too
        return json.loads(body)


def render_json(content: Any) -> bytes:
    """Return models and plain values as JSON, without what is None and without a copy as text."""
    try:
        return _ANYTHING.dump_json(content, exclude_none=True)
    except ValueError:  # a lone surrogate in a document that comes back
        return json.dumps(_ANYTHING.dump_python(content, exclude_none=True)).encode()


def is_renderable(content: Any) -> bool:
    """Say whether JSON that was read can be written: it can be nested deeper than pydantic writes it."""
    level = [content]
    for _ in range(MAX_DEPTH):
        containers = [each for each in level if isinstance(each, dict | list)]
        if not containers:
            return True
        level = [inner for each in containers for inner in (each.values() if isinstance(each, dict) else each)]
    return False


def send_json(content: Any, status: int = 200) -> Response:
    """Return an answer of JSON."""
    return Response(render_json(content), status, media_type="application/json")


class JsonRequest(Request):
    """A request whose body is read by parse_json."""

    async def json(self) -> Any:
        """Return the body's content once, and forget the body: it would stay until the answer has been read."""
        body, self._body = await self.body(), b""
        return parse_json(body)


class JsonRoute(APIRoute):
    """A route whose requests are of another class."""

    request_class = JsonRequest

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See FastAPI."""
        handle = super().get_route_handler()

        async def handle_json(request: Request) -> Response:
            return await handle(self.request_class(request.scope, request.receive))

        return handle_json
