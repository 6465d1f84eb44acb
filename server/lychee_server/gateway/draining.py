"""Middleware: when the gateway stops, new requests are refused and those in flight are finished."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lychee_server.defaults import MIB
from lychee_server.gateway.metrics import Metrics
from lychee_server.gateway.refusals import local_path, refuse

HEALTH_PREFIX: Final = "/health"  # these say themselves that the gateway stops
RETRY_AFTER_S: Final = 2
POLL_INTERVAL_S: Final = 0.1
LINGER_S: Final = 0.5
MOST_READ_BYTES: Final = MIB
MOST_READ_S: Final = 1.0


class Drain:
    """What is in flight, and whether anything new may begin.

    Args:
        metrics: Tell which calls are in flight, and count the refusals.

    Attributes:
        stopping: True once the gateway stops.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.stopping = False
        self._metrics = metrics
        self._requests = 0
        self._refused_at_s = 0.0

    @property
    def in_flight(self) -> int:
        """Requests that are being answered, and calls that the gateway makes itself."""
        return self._requests + self._metrics.calls_in_flight

    def begin(self) -> None:
        """Refuse everything new from now on."""
        self.stopping = True
        self._metrics.stop()

    async def finish(self) -> None:
        """Wait until nothing is in flight, and has not been for a moment.

        In that moment callers with open connections learn from an answer that theirs is closed.
        """
        idle_since = time.monotonic()
        while time.monotonic() - idle_since < LINGER_S:
            await asyncio.sleep(POLL_INTERVAL_S)
            if self.in_flight:
                idle_since = time.monotonic()

    async def tell_the_last(self, quiet_s: float) -> None:
        """Wait until no request has been refused for so long: each was the last of its connection."""
        began_s = time.monotonic()
        while time.monotonic() - max(began_s, self._refused_at_s) < quiet_s:
            await asyncio.sleep(POLL_INTERVAL_S)

    async def run(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if self.stopping and not local_path(scope).startswith(HEALTH_PREFIX):
            self._refused_at_s = time.monotonic()
            self._metrics.reject("stopping")
            await _read_on(receive)
            retry = {"retry-after": str(RETRY_AFTER_S)}
            await refuse(send, 503, "stopping", "the gateway is stopping; ask another one", headers=retry, close=True)
            return

        async def send_and_close(message: Message) -> None:
            await send(_close_after(message) if self.stopping else message)

        self._requests += 1
        try:
            await app(scope, receive, send_and_close)
        finally:
            self._requests -= 1


async def _read_on(receive: Receive) -> None:
    """Read the rest of a request that is refused: closed with something unread, TCP resets and the answer is lost."""
    size_bytes, more = 0, True
    with suppress(TimeoutError):
        async with asyncio.timeout(MOST_READ_S):
            while more and size_bytes < MOST_READ_BYTES:
                message = await receive()
                size_bytes += len(message.get("body", b""))
                more = message.get("more_body", False)


def _close_after(message: Message) -> Message:
    """Have an answer say that its connection ends with it: nobody sends the next request into a closing one."""
    if message["type"] != "http.response.start":
        return message
    headers = [(name, value) for name, value in message.get("headers", ()) if name.lower() != b"connection"]
    return {**message, "headers": [*headers, (b"connection", b"close")]}


class DrainMiddleware:
    """Hands the requests to a Drain.

    Args:
        app: The next application.
        drain: The gateway's Drain, which lives as long as the gateway.
    """

    def __init__(self, app: ASGIApp, *, drain: Drain) -> None:
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "http":
            await self._drain.run(self._app, scope, receive, send)
        else:
            await self._app(scope, receive, send)
