"""The clients of the gateway: one that all calls share, and new ones for every look at the server's health."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from lychee_client import AsyncLycheeClient, LycheeError, ModelTimings
from lychee_client._plan import control
from lychee_client._statistics import model_timings
from lychee_client._transports.base import ControlRequest, Request, Transport


class GatewayClient(AsyncLycheeClient):
    """An AsyncLycheeClient with two more questions to the server."""

    async def is_ready(self, timeout_s: float) -> bool:
        """Say whether the server answers and all its models are ready."""
        try:
            answer = await self._carry_out(control(ControlRequest("ready")), timeout_s)
        except LycheeError:
            return False
        return bool(answer["ready"])

    async def model_statistics(self, timeout_s: float) -> Mapping[str, ModelTimings]:
        """Return what the server counted for each model since it loaded it, models without requests left out.

        Raises:
            LycheeError: The server does not answer.
        """
        answer = await self._carry_out(control(ControlRequest("statistics")), timeout_s)
        return model_timings({}, answer, [model["name"] for model in answer.get("model_stats", [])])


class LentTransport:
    """A transport that its owner closes, not the clients that use it."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def send(self, request: Request, timeout_s: float | None) -> Future[Any]:
        """See Transport."""
        return self._transport.send(request, timeout_s)

    def close(self) -> None:
        """Do nothing."""


@dataclass(slots=True)
class _Lease:
    client: GatewayClient
    users: int = 0
    retired: bool = False


class SharedClient:
    """A client that can be replaced while it is used. What it holds is closed by it."""

    def __init__(self, client: GatewayClient) -> None:
        self._lease = _Lease(client)

    @asynccontextmanager
    async def use(self) -> AsyncIterator[GatewayClient]:
        """Lend the client; it stays open for the body, even if it is replaced meanwhile."""
        lease = self._lease
        lease.users += 1
        try:
            yield lease.client
        finally:
            lease.users -= 1
            await _close_unused(lease)

    async def replace(self, client: GatewayClient) -> None:
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
