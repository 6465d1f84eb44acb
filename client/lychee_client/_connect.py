"""From a configuration to the transport of its protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from lychee_client._config import ClientConfig
from lychee_client.transports.addresses import Address, is_name
from lychee_client.transports.base import ControlRequest, JsonRequest, Request, Transport
from lychee_client.transports.connection import Connection
from lychee_client.transports.replicas import Replicas
from lychee_client.transports.shared_memory import SharedMemoryPool

_TRITON_PROBE: Final = ControlRequest("ready")
_GATEWAY_PROBE: Final = JsonRequest("GET", "/health/ready", any_status=True)


def connect(config: ClientConfig, pool: SharedMemoryPool | None = None) -> Transport:
    """Return a transport; it does no network before its first request.

    The protocols are imported here, and only the one that is needed: each takes a fifth of a second.
    """
    protocol: Callable[[Connection], Transport]
    if config.is_grpc:
        from lychee_client.transports.grpc import GrpcTransport

        protocol = GrpcTransport
    else:
        from lychee_client.transports.http import HttpTransport

        protocol = HttpTransport
    addresses = config.addresses
    if pool is not None or not (len(addresses) > 1 or is_name(addresses[0])):
        return protocol(config.make_connection(pool))

    def make(address: Address) -> Transport:
        return protocol(replace(config.make_connection(None, address.target), ip=address.ip))

    probes: tuple[Request, ...] = (_TRITON_PROBE,) if config.is_grpc else (_GATEWAY_PROBE, _TRITON_PROBE)
    return Replicas(addresses, make, probes)
