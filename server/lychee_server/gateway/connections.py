"""Connections that hold the gateway up: slow heads of requests, slow readers of answers, and too many of all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS: Final = 1000
HEAD_TIMEOUT_S: Final = 10.0  # for a request's first line and headers
STALL_TIMEOUT_S: Final = 10.0  # for a reader that takes nothing of its answer
ANSWER_TIMEOUT_S: Final = 60.0  # for a reader that takes too little: how long its answer may stand still in all

_logger = logging.getLogger(__name__)


class GuardedProtocol(H11Protocol):
    """HTTP on one connection, with an eye on how long it keeps the gateway waiting. `cut_off_slow` ends it then."""

    max_connections = MAX_CONNECTIONS

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.heard_s = self.loop.time()
        self._head_began_s: float | None = self.heard_s  # a new connection has to say something
        self._paused_s: float | None = None
        self._stood_still_s = 0.0

    @property
    def is_answering(self) -> bool:
        """Whether a whole request is being answered."""
        return self._has_request and not self.cycle.more_body

    @property
    def _has_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio. Where there are too many connections, one that matters least makes room."""
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            others = (other for other in self.connections if isinstance(other, GuardedProtocol) and other is not self)
            least = min(others, key=lambda other: (other.is_answering, other.heard_s), default=None)
            if least is not None:
                least.abort()

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        self.heard_s = self.loop.time()
        if self._head_began_s is None and not self._has_request:
            self._head_began_s = self.heard_s
        super().data_received(data)
        if self._has_request:
            self._head_began_s = None

    def on_response_complete(self) -> None:
        """See uvicorn."""
        self._stood_still_s = 0.0
        super().on_response_complete()

    def pause_writing(self) -> None:
        """See asyncio."""
        self._paused_s = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """See asyncio."""
        if self._paused_s is not None:
            self._stood_still_s += self.loop.time() - self._paused_s
            self._paused_s = None
        super().resume_writing()

    def is_too_slow(self, now_s: float) -> bool:
        """Say whether the other side has had its time."""
        if self._paused_s is not None:
            paused_s = now_s - self._paused_s
            return paused_s > STALL_TIMEOUT_S or self._stood_still_s + paused_s > ANSWER_TIMEOUT_S
        return self._head_began_s is not None and now_s - self._head_began_s > HEAD_TIMEOUT_S

    def abort(self) -> None:
        """End the connection at once, whatever has not been read."""
        self.connections.discard(self)
        self.transport.abort()


def cut_off_slow(connections: Iterable[asyncio.Protocol], now_s: float, note: Callable[[str], None]) -> None:
    """End the connections that are too slow.

    Args:
        connections: All open ones.
        now_s: The time, as the event loop has it.
        note: Called for each of them with the reason under which metrics count it.
    """
    slow = [each for each in connections if isinstance(each, GuardedProtocol) and each.is_too_slow(now_s)]
    for connection in slow:
        connection.abort()
        note("slow")
    if slow:
        _logger.info("slow connections were cut off", extra={"fields": {"connections": len(slow)}})
