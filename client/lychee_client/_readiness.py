"""Whether a server is ready, and what it says about itself: a Triton, or a gateway."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from lychee_client._assets import CLIENT_ASSETS
from lychee_client._calls import Calls
from lychee_client._errors import ConnectionFailedError, ServerError
from lychee_client._operations import Sleep, ask
from lychee_client.transports.base import ControlRequest
from lychee_client.types import ModelStatus, ServerStatus

POLL_INTERVAL_S: Final = 0.1
_REFUSED: Final = ("401", "403")  # no waiting helps


class Readiness:
    """Makes the calls of one client that ask for no score.

    Args:
        calls: The other calls of the client.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def wait_until_ready(self) -> None:
        """See LycheeClient.wait_until_ready."""
        await self._wait_for(self._has_answer, "a server")
        gateway = await self._calls.discovery.find()
        if gateway is not None:
            await self._wait_for(gateway.is_ready, "the gateway")
            await gateway.model()
            return
        await self._wait_for_model(CLIENT_ASSETS)
        manifest = (await self._calls.load_newest()).manifest
        for model_name in manifest.max_batch_size:
            await self._wait_for_model(model_name)

    async def is_ready(self) -> bool:
        """See LycheeClient.is_ready."""
        return await self._try(self._ask_ready)

    async def server_status(self) -> ServerStatus:
        """See LycheeClient.server_status."""
        if not await self._try(self._has_answer):
            return ServerStatus(live=False)
        gateway = await self._calls.discovery.find()
        if gateway is not None:
            return await gateway.status()
        if not await self._try(self._asker(ControlRequest("live"))):
            return ServerStatus(live=False)
        ready = await self._try(self._ask_ready)
        metadata = await ask(ControlRequest("metadata"))
        index = await self._list_models()
        models = tuple(
            ModelStatus(
                name=model["name"],
                version=str(model.get("version", "")),
                ready=model.get("state") == "READY",
                reason=model.get("reason", ""),
            )
            for model in index.get("models", [])
        )
        return ServerStatus(live=True, ready=ready, version=metadata.get("version"), models=models)

    async def _list_models(self) -> dict[str, Any]:
        try:
            return await ask(ControlRequest("index"))
        except ServerError:  # kept to those with the key; the models that are ready are no secret
            counted = (await ask(ControlRequest("statistics"))).get("model_stats", [])
            return {"models": [{**model, "state": "READY"} for model in counted]}

    async def _has_answer(self) -> bool:
        """Find out what is at the URL."""
        await self._calls.discovery.find()
        return True

    async def _ask_ready(self) -> bool:
        gateway = await self._calls.discovery.find()
        return await self._asker(ControlRequest("ready"))() if gateway is None else await gateway.is_ready()

    async def _wait_for_model(self, model_name: str) -> None:
        await self._wait_for(self._asker(ControlRequest("model_ready", model_name)), model_name)

    async def _wait_for(self, question: Callable[[], Awaitable[bool]], what: str) -> None:
        while not await self._try(question):
            await Sleep(POLL_INTERVAL_S, f"{what} on {self._calls.config.url} to be ready")

    async def _try(self, question: Callable[[], Awaitable[bool]]) -> bool:
        try:
            return await question()
        except (ConnectionFailedError, ServerError) as error:
            if self._calls.closed or getattr(error, "status", None) in _REFUSED:
                raise
            return False

    @staticmethod
    def _asker(request: ControlRequest) -> Callable[[], Awaitable[bool]]:
        async def is_ready() -> bool:
            return bool((await ask(request))["ready"])

        return is_ready
