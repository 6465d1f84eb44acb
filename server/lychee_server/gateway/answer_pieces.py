"""Middleware: a large answer goes out in pieces, so that what its reader does not take is not copied into buffers."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

PIECE_BYTES: Final = 2**17


class AnswerPieces:
    """Sends bodies piece by piece. Each piece waits until the connection has taken most of the one before.

    So the request lasts until its answer is nearly read, and counts that long in BodyLimit.

    Args:
        app: The next application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""

        async def send_in_pieces(message: Message) -> None:
            body = memoryview(message.get("body", b""))
            if message["type"] != "http.response.body" or len(body) <= PIECE_BYTES:
                await send(message)
                return
            for start in range(0, len(body), PIECE_BYTES):
                is_last = start + PIECE_BYTES >= len(body)
                more_body = message.get("more_body", False) or not is_last
                piece = bytes(body[start : start + PIECE_BYTES])
                await send({"type": "http.response.body", "body": piece, "more_body": more_body})

        await self._app(scope, receive, send_in_pieces if scope["type"] == "http" else send)
