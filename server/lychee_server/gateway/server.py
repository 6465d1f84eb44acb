"""Run the gateway until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from pathlib import Path
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI

from lychee_server.gateway.app import create_app
from lychee_server.gateway.connections import GuardedProtocol, cut_off_slow
from lychee_server.gateway.draining import Drain
from lychee_server.gateway.experiments.running import RunningExperiment
from lychee_server.gateway.logs import configure_logging
from lychee_server.gateway.model_services import ModelServices
from lychee_server.gateway.process import LISTENER_VARIABLE, LOG_VARIABLE
from lychee_server.gateway.process_limits import give_back_large_blocks, raise_file_limit, yield_to_model_server
from lychee_server.gateway.settings import GatewaySettings
from lychee_server.processes import BACKLOG, listen

KEEP_ALIVE_S: Final = 75  # longer than the idle time of common proxies
PROXIES_VARIABLE: Final = "FORWARDED_ALLOW_IPS"  # uvicorn's: whose X-Forwarded-For is believed
LOOPBACK: Final = "127.0.0.1,::1"
CLOSING_S: Final = 1  # for connections, after the calls have ended or were given up
LAST_REQUESTS_S: Final = 1.0  # of connections that were accepted last, or wait for their next request to be read
EXIT_OK: Final = 0
TICKS_PER_LOOK: Final = 10  # uvicorn ticks every 0.1 s

_logger = logging.getLogger(__name__)


def serve(settings: GatewaySettings) -> int:
    """Listen until SIGTERM or SIGINT, finish what is in flight, and return the exit code. A second signal exits now.

    Raises:
        PortInUseError: Another process holds the port.
        SettingsError: A setting cannot be used.
    """
    log = os.environ.pop(LOG_VARIABLE, None)
    configure_logging(settings, None if log is None else Path(log))
    _logger.setLevel(logging.INFO)  # whatever the settings say: with port 0 nobody else knows the port
    with _open_listener(settings) as listener:
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
    """Says where it listens, and lets calls end before it does."""

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
            http=GuardedProtocol,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=CLOSING_S,
        )
        super().__init__(config)
        self._drain_timeout_s = settings.drain_timeout_s
        GuardedProtocol.max_connections = raise_file_limit()
        give_back_large_blocks()
        yield_to_model_server()
        self._drain: Drain = app.state.drain
        self._services: ModelServices = app.state.services
        self._experiment: RunningExperiment | None = app.state.experiment
        self._listener = listener
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        host, port = self._listener.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        _logger.info("listening", extra={"fields": {"url": url, "port": port}})

    async def on_tick(self, counter: int) -> bool:
        """See uvicorn."""
        if counter % TICKS_PER_LOOK == 0 and self._loop is not None:
            cut_off_slow(self.server_state.connections, self._loop.time(), self._services.metrics.reject)
        return await super().on_tick(counter)

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
        self._services.begin_stopping()
        if self._experiment is not None:
            self._experiment.begin_stopping()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what comes while calls are in flight, with a refusal; uvicorn alone would first close what is idle."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._drain_timeout_s):
                await self._drain.finish()
        for server in self.servers:
            server.close()
        await self._drain.tell_the_last(LAST_REQUESTS_S)
        await super().shutdown(sockets)


def _open_listener(settings: GatewaySettings) -> socket.socket:
    """Return the socket that the supervisor hands down, or an own one.

    Raises:
        PortInUseError: Another process holds the port.
    """
    inherited = os.environ.pop(LISTENER_VARIABLE, None)
    return listen(settings.host, settings.port) if inherited is None else socket.socket(fileno=int(inherited))
