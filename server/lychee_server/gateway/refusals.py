"""Answers of the middleware to requests that never reach a route: the same JSON as the errors of the routes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from starlette.types import Scope, Send

from lychee_server.gateway.request_ids import current_request_id

JSON: Final = b"application/json"


async def refuse(
    send: Send, status: int, kind: str, message: str, *, headers: Mapping[str, str] | None = None, close: bool = False
) -> None:
    """Answer a request with an error.

    Args:
        send: The ASGI function that sends the answer to the request.
        status: The HTTP status of the answer.
        kind: What kind of error it is, for programs, such as "unauthorized".
        message: What people read: what happened and what to do.
        headers: Further headers, besides the content's type and length.
        close: Whether to end the connection afterwards, because the rest of the request stays unread.
    """
    body = {"message": message, "type": kind, "param": None, "request_id": current_request_id()}
    content = json.dumps(body, ensure_ascii=False).encode()
    fields = [(b"content-type", JSON), (b"content-length", str(len(content)).encode())]
    fields += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items()]
    if close:
        fields.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": content})


def header(scope: Scope, name: bytes) -> str | None:
    """Return the first header of this lower-case name."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)


def local_path(scope: Scope) -> str:
    """Return the path below the path under which a proxy serves the gateway."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path.removeprefix(root) if root and path.startswith(f"{root}/") else path
