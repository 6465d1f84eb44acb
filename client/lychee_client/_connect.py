"""From a configuration to the transport of its protocol."""

from __future__ import annotations

from lychee_client._config import ClientConfig
from lychee_client.transports.base import Transport
from lychee_client.transports.shared_memory import SharedMemoryPool


def connect(config: ClientConfig, pool: SharedMemoryPool | None = None) -> Transport:
    """Return a transport; it does no network before its first request.

    The protocols are imported here, and only the one that is needed: each takes a fifth of a second.
    """
    connection = config.make_connection(pool)
    if config.is_grpc:
        from lychee_client.transports.grpc import GrpcTransport

        return GrpcTransport(connection)
    from lychee_client.transports.http import HttpTransport

    return HttpTransport(connection)
