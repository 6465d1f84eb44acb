"""The JSON of every error, and the answers of the middleware to requests that never reach a route."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from starlette.types import Scope, Send

from lychee_server.gateway.request_ids import current_request_id

JSON: Final = b"application/json"
# What OpenAI's API calls kinds of errors, by status; 4xx and 5xx have one each besides.
_OPENAI_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def describe_error(status: int, kind: str, message: str, param: str | None = None) -> dict[str, Any]:
    """Return the body of an error, for all clients at once.

    Cohere's and Together's clients take any JSON, and people read `message` in it. OpenAI's clients and those made
    after them read the object `error` alone, where `code` must be a string. Jina's, vLLM's, Voyage's and Xinference's
    read `detail`, and fail with a KeyError without it. None of them minds what else is there.

    Args:
        status: The HTTP status of the answer.
        kind: What kind of error it is, for programs, such as "unauthorized".
        message: What people read: what happened and what to do.
        param: The field of the request that is wrong.
    """
    family = "server_error" if status >= 500 else _OPENAI_TYPES.get(status, "invalid_request_error")
    return {
        "message": message,
        "detail": message,
        "type": kind,
        "param": param,
        "request_id": current_request_id(),
        "error": {"message": message, "type": family, "code": kind, "param": param},
    }


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
    content = json.dumps(describe_error(status, kind, message), ensure_ascii=False).encode()
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
