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
from lychee_client.transports.traced import TracedTransport

_TRITON_PROBE: Final = ControlRequest("ready")
_GATEWAY_PROBE: Final = JsonRequest("GET", "/health/ready", any_status=True)


def connect(config: ClientConfig, pool: SharedMemoryPool | None = None, *, traced: bool = False) -> Transport:
    """Return a transport; it does no network before its first request.

    The protocols are imported here, and only the one that is needed: each takes a fifth of a second.

    Args:
        config: The settings of the client.
        pool: The memory for larger tensors; None sends all of them.
        traced: Whether calls may have a span.
    """
    protocol: Callable[[Connection], Transport]
    if config.is_grpc:
        from lychee_client.transports.grpc import GrpcTransport

        protocol = GrpcTransport
    else:
        from lychee_client.transports.http import HttpTransport

        protocol = HttpTransport
    addresses = config.addresses

    def open_one(address: Address, pool: SharedMemoryPool | None = None) -> Transport:
        transport = protocol(replace(config.make_connection(pool, address.target), ip=address.ip))
        return TracedTransport(transport, address, is_grpc=config.is_grpc) if traced else transport

    if pool is not None or not (len(addresses) > 1 or is_name(addresses[0])):
        return open_one(Address(addresses[0]), pool)

    probes: tuple[Request, ...] = (_TRITON_PROBE,) if config.is_grpc else (_GATEWAY_PROBE, _TRITON_PROBE)
    return Replicas(addresses, open_one, probes)
