"""What is at the URL of a client: a Triton server or a gateway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NoReturn, TypeAlias

from lychee_client._config import ClientConfig
from lychee_client._errors import ConfigurationError
from lychee_client._gateway.gateway import Gateway
from lychee_client._operations import exchange
from lychee_client.transports.base import JsonRequest

Server: TypeAlias = Literal["gateway", "triton", "unknown"]


class Discovery:
    """Finds out with the first call what a client talks to, and remembers only what is certain.

    Args:
        config: The settings of the client.
        triton_options: The names of the options that were given, and mean nothing to a gateway.
        may_be_gateway: Whether a gateway may be at the URL.
    """

    def __init__(self, config: ClientConfig, triton_options: Sequence[str], *, may_be_gateway: bool) -> None:
        self._config = config
        self._triton_options = triton_options
        self._may_be_gateway = may_be_gateway
        self._gateway: Gateway | None = None

    async def find(self) -> Gateway | None:
        """Return the gateway at the URL, or None where a Triton server is. Ask until it is known.

        Raises:
            ConfigurationError: It is a gateway, and an option of the client is for Triton alone.
            LycheeError: Nothing answers, or something else.
        """
        if self._gateway is None and self._may_be_gateway:
            server: Server = (await _recognise()) if self._config.may_be_triton else "unknown"
            if server == "triton":
                self._may_be_gateway = False
                return None
            gateway = Gateway(self._config.url, self._config.api_key, self._config.model)
            if server == "unknown":
                await gateway.models()  # or raise what is there instead
            for option in self._triton_options:
                self.refuse(option)
            self._gateway = gateway
        return self._gateway

    def refuse(self, what: str) -> NoReturn:
        """Refuse what a gateway does not offer.

        Raises:
            ConfigurationError: Always.
        """
        raise ConfigurationError(
            f"{what} needs Triton's own address (HOST:8001, or http://HOST:8000), and {self._config.url} is a "
            "gateway's; use a client of that address for it, or leave it out"
        )


async def _recognise() -> Server:
    """Ask an HTTP server what it is, without the API key: a Triton shall not get it.

    Raises:
        LycheeError: Nothing answers.
    """
    live = await exchange(JsonRequest("GET", "/health/live", any_status=True))
    if live.status == 200 and isinstance(live.content, Mapping) and live.content.get("status") == "ok":
        return "gateway"
    metadata = await exchange(JsonRequest("GET", "/v2", any_status=True))
    if metadata.status == 200 and isinstance(metadata.content, Mapping) and "extensions" in metadata.content:
        return "triton"
    return "unknown"
