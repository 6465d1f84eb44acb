"""Run the gateway until a signal ends it."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import socket
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI

from lychee_server import processes
from lychee_server.errors import PortInUseError
from lychee_server.gateway.app import create_app
from lychee_server.gateway.draining import Drain
from lychee_server.gateway.logs import configure_logging
from lychee_server.gateway.service import Service
from lychee_server.gateway.settings import GatewaySettings

MAX_CONNECTIONS: Final = 1000
BACKLOG: Final = 2048
KEEP_ALIVE_S: Final = 75  # longer than the idle time of common proxies
PROXIES_VARIABLE: Final = "FORWARDED_ALLOW_IPS"  # uvicorn's: whose X-Forwarded-For is believed
LOOPBACK: Final = "127.0.0.1,::1"
EXIT_OK: Final = 0

_logger = logging.getLogger(__name__)


def serve(settings: GatewaySettings) -> int:
    """Listen until SIGTERM or SIGINT, finish what is in flight, and return the exit code. A second signal exits now.

    Raises:
        PortInUseError: Another process holds the port.
        SettingsError: A setting cannot be used.
    """
    configure_logging(settings)
    _logger.setLevel(logging.INFO)  # whatever the settings say: with port 0 nobody else knows the port
    with _listen(settings.host, settings.port) as listener:
        server = _Server(create_app(settings), settings, listener)
        for number in (signal.SIGINT, signal.SIGTERM):
            # uvicorn raises the signal once more at its end, for whoever handled it before.
            signal.signal(number, lambda number, frame: None)
        try:
            server.run(sockets=[listener])
        except SystemExit as error:  # the app did not start; the log says why
            return int(error.code or EXIT_OK)
    return EXIT_OK


class _Server(uvicorn.Server):
    """Says where it listens, and lets calls end before event streams are cut."""

    def __init__(self, app: FastAPI, settings: GatewaySettings, listener: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            ws="none",
            lifespan="on",
            server_header=False,
            root_path=settings.root_path,
            forwarded_allow_ips=os.environ.get(PROXIES_VARIABLE, LOOPBACK),
            limit_concurrency=MAX_CONNECTIONS,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=math.ceil(settings.drain_timeout_s),
        )
        super().__init__(config)
        self._drain: Drain = app.state.drain
        self._service: Service = app.state.service
        self._listener = listener
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        host, port = self._listener.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        _logger.info("listening", extra={"fields": {"url": url, "port": port}})

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """See uvicorn."""
        if self.should_exit:
            os._exit(128 + sig)
        if self._loop is not None:  # not in the signal handler: logs and metrics have locks
            self._loop.call_soon_threadsafe(self._begin_stopping)
        super().handle_exit(sig, frame)

    def _begin_stopping(self) -> None:
        _logger.info("stopping", extra={"fields": {"in_flight": self._drain.in_flight}})
        self._drain.begin()
        self._service.begin_stopping()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        finishing = asyncio.create_task(self._drain.finish())
        try:
            await super().shutdown(sockets)
        finally:
            finishing.cancel()


def _listen(host: str, port: int) -> socket.socket:
    """Return a bound socket.

    Raises:
        PortInUseError: Another process holds the port.
    """
    processes.check_port(host, port, option="--port")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:  # taken since the check
        listener.close()
        raise PortInUseError(f"Port {port} on {host} is not free ({error.strerror}); see --port.", port=port) from error
    return listener
