"""One repository that a supervisor serves: its Triton, which an upgrade replaces, and metrics that stay in place."""

from __future__ import annotations

import socket

from lychee_server.local_http import reachable_host
from lychee_server.processes import listen
from lychee_server.relay import Relay
from lychee_server.state import TritonState, triton_process_name
from lychee_server.supervision.children import TritonChild
from lychee_server.triton import TritonServer

__all__ = ["ServedRepository"]

CONNECT_TIMEOUT_S = 5.0


class ServedRepository:
    """A name, a Triton and a port for its metrics, whichever Triton it is.

    Args:
        name: What people call it; empty for the only one of a server.
        server: A TritonServer that is not started yet, replaceable and with a metrics port of its own.
        metrics_port: Where its metrics are for others; 0 picks a free port.

    Attributes:
        child: Its Triton as the supervisor sees it.
    """

    def __init__(self, name: str, server: TritonServer, metrics_port: int) -> None:
        self.name = name
        self.child = TritonChild(server, triton_process_name(name))
        self.metrics_port = metrics_port
        self._relay: Relay | None = None

    @property
    def server(self) -> TritonServer:
        """The Triton that serves it now."""
        return self.child.server

    @property
    def metrics_url(self) -> str:
        """URL of the Prometheus metrics."""
        return f"http://{reachable_host(self.server.host)}:{self.metrics_port}/metrics"

    def open_metrics(self) -> None:
        """Take the port for its metrics, and pass on from there whoever asks.

        Raises:
            PortInUseError: Another process holds it.
        """
        listener = listen(self.server.host, self.metrics_port, option="--metrics-port", host_option="--triton-host")
        self._relay = Relay(listener, self._connect)
        self.metrics_port = self._relay.port

    def _connect(self) -> socket.socket:
        address = reachable_host(self.server.host), self.server.metrics_port
        connection = socket.create_connection(address, timeout=CONNECT_TIMEOUT_S)
        connection.settimeout(None)
        return connection

    def describe(self) -> TritonState:
        """Return what others may know of it, once it was started."""
        server, process = self.server, self.server.process_id
        return TritonState(
            name=self.name,
            pid=process.pid,
            start_ticks=process.start_ticks,
            marker=server.marker,
            host=server.host,
            http_port=server.http_port,
            grpc_port=server.grpc_port,
            metrics_port=self.metrics_port,
            repository=str(server.repository),
            log_path=str(server.log_path),
            version=server.export.version,
            config_name=server.export.config_name,
        )

    def stop(self) -> None:
        """Stop its Triton, and let go of its ports."""
        if self._relay is not None:
            self._relay.close()
        if self.server.pid is not None:
            self.server.stop()
