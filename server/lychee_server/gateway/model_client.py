"""The clients of the gateway: one that all calls share, and new ones for every look at the server's health."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from lychee_client import AsyncLycheeClient, ReplicaStatus
from lychee_client.transports.base import Request, Transport


class LentTransport:
    """A transport that its owner closes, not the clients that use it."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def send(self, request: Request, timeout_s: float | None) -> Future[Any]:
        """See Transport."""
        return self._transport.send(request, timeout_s)

    def close(self, farewell: Request | None = None) -> None:
        """Do nothing."""


@dataclass(slots=True)
class _Lease:
    client: AsyncLycheeClient
    users: int = 0
    retired: bool = False


class SharedClient:
    """A client that can be replaced while it is used. What it holds is closed by it."""

    def __init__(self, client: AsyncLycheeClient) -> None:
        self._lease = _Lease(client)

    @asynccontextmanager
    async def use(self) -> AsyncIterator[AsyncLycheeClient]:
        """Lend the client; it stays open for the body, even if it is replaced meanwhile."""
        lease = self._lease
        lease.users += 1
        try:
            yield lease.client
        finally:
            lease.users -= 1
            await _close_unused(lease)

    def answered_at(self) -> Mapping[str, float]:
        """Return when each model last answered the client, by `time.monotonic`."""
        return self._lease.client.answered_at

    def replicas(self) -> tuple[ReplicaStatus, ...]:
        """See LycheeClient.replicas."""
        return self._lease.client.replicas

    def sent_again(self) -> Mapping[str, int]:
        """See LycheeClient.sent_again."""
        return self._lease.client.sent_again

    async def replace(self, client: AsyncLycheeClient) -> None:
        """Lend another one from now on: a client keeps the manifest and the tokenizer that it has seen first."""
        retired, self._lease = self._lease, _Lease(client)
        retired.retired = True
        await _close_unused(retired)

    async def aclose(self) -> None:
        """Close the client once nobody uses it."""
        self._lease.retired = True
        await _close_unused(self._lease)


async def _close_unused(lease: _Lease) -> None:
    if lease.retired and lease.users == 0:
        await lease.client.aclose()
