"""Middleware: how large a request's body may be, how long it may take, and how much of all bodies lies in memory."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Final

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lychee_server.defaults import MIB
from lychee_server.gateway.metrics import Metrics
from lychee_server.gateway.refusals import header, refuse

# So many of the largest size; smaller ones in proportion. A body lies in memory about three times while it is answered
# (as it came, parsed, and its images decoded from base64), and once more in an answer that returns the documents.
BODIES_IN_MEMORY: Final = 2
SMALL_BYTES: Final = MIB  # bodies up to this size have a share that larger ones cannot fill
SMALL_SHARE_BYTES: Final = 64 * MIB
BODY_TIMEOUT_S: Final = 60.0
DISCARD_TIMEOUT_S: Final = 2.0
RETRY_AFTER_S: Final = 1


class BodyLimit:
    """Refuses bodies that are too large (413), too slow (408), or too many at the same time (429).

    Args:
        app: The next application.
        max_request_mb: The size of the largest body, in 2**20 bytes.
        metrics: Where refusals are counted.
        timeout_s: How many seconds a body may take to arrive.
    """

    def __init__(
        self, app: ASGIApp, *, max_request_mb: int, metrics: Metrics, timeout_s: float = BODY_TIMEOUT_S
    ) -> None:
        self._app = app
        self._max_request_mb = max_request_mb
        self._max_bytes = max_request_mb * MIB
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._in_memory = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(self, receive, send)
        declared = header(scope, b"content-length")
        if declared is not None and declared.isascii() and declared.isdigit():
            refusal = self.refusal(int(declared), int(declared))
            if refusal is not None:
                if header(scope, b"expect") is None:  # who asks first sends nothing
                    await _discard(receive, self._max_bytes)
                await self._refuse(send, refusal)
                return
        try:
            await self._app(scope, body.receive, body.send)
        except Exception:
            if body.refusal is None or body.started:
                raise
        finally:
            self._in_memory -= body.size
        if body.refusal is not None and not body.started:
            await _discard(receive, self._max_bytes)
            await self._refuse(send, body.refusal)

    def refusal(self, size: int, added: int) -> int | None:
        """Return the status for a body of this size that adds so much to what lies in memory, or None."""
        if size > self._max_bytes:
            return 413
        share = SMALL_SHARE_BYTES if size <= SMALL_BYTES else 0
        return 429 if self._in_memory + added > BODIES_IN_MEMORY * self._max_bytes + share else None

    def take(self, size: int) -> None:
        """Count bytes that lie in memory now."""
        self._in_memory += size

    async def receive(self, receive: Receive, began_at_s: float) -> Message:
        """Wait for the next part of a body.

        Raises:
            TimeoutError: The body takes too long.
        """
        async with asyncio.timeout(max(0.0, began_at_s + self._timeout_s - time.monotonic())):
            return await receive()

    async def _refuse(self, send: Send, status: int) -> None:
        size = f"{self._max_request_mb} MiB (--max-request-mb)"
        if status == 413:
            self._metrics.reject("too_large")
            await refuse(send, status, "too_large", f"the request is larger than {size}; send less", close=True)
        elif status == 408:
            self._metrics.reject("invalid")
            message = f"the request's body took longer than {self._timeout_s:g} s; send less, or faster"
            await refuse(send, status, "timeout", message, close=True)
        else:
            self._metrics.reject("busy")
            message = f"the requests in memory are as large as {BODIES_IN_MEMORY} of {size}; try again later"
            retry = {"retry-after": str(RETRY_AFTER_S)}
            await refuse(send, status, "busy", message, headers=retry, close=True)


class _Body:
    """Counts one body. Once it is refused, the answer of the app is left out."""

    def __init__(self, limit: BodyLimit, receive: Receive, send: Send) -> None:
        self.size = 0
        self.refusal: int | None = None
        self.started = False
        self._limit = limit
        self._receive = receive
        self._send = send
        self._began_at_s = time.monotonic()
        self._complete = False

    async def receive(self) -> Message:
        if self.refusal is not None:
            raise HTTPException(self.refusal)
        if self._complete:  # what comes now is the end of the connection
            return await self._receive()
        try:
            message = await self._limit.receive(self._receive, self._began_at_s)
        except TimeoutError:
            raise self._refuse(408) from None
        if message["type"] == "http.request":
            added = len(message.get("body", b""))
            self.size += added
            refusal = self._limit.refusal(self.size, added)
            self._limit.take(added)
            if refusal is not None:
                raise self._refuse(refusal)
        self._complete = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if self.refusal is not None and not self.started:
            return
        self.started = True
        await self._send(message)

    def _refuse(self, status: int) -> HTTPException:
        self.refusal = status
        return HTTPException(status)


async def _discard(receive: Receive, max_bytes: int) -> None:
    """Read on for a moment, so that a client which sends everything first gets to read the answer."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_TIMEOUT_S):
            discarded = 0
            while discarded <= max_bytes:
                message = await receive()
                discarded += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
