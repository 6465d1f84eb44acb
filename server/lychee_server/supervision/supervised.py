"""The server of `lychee load`, kept up, and what it says of itself."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from lychee_server import state
from lychee_server.errors import LycheeServerError
from lychee_server.gateway.process import GatewayProcess
from lychee_server.log_files import empty_large, most_bytes, rotate_own
from lychee_server.supervision.children import Child, GatewayChild, TritonChild
from lychee_server.supervision.supervisor import Supervisor
from lychee_server.triton import TritonServer

__all__ = ["SupervisedServer", "configure_log"]

_logger = logging.getLogger("lychee_server.supervision")


class SupervisedServer:
    """Triton, and perhaps a gateway.

    Args:
        server: A TritonServer that is not started yet.
        gateway: None runs Triton alone.
        log_path: The file that this process writes once it supervises; None: its output is no file of ours.
    """

    def __init__(self, server: TritonServer, gateway: GatewayProcess | None, log_path: Path | None = None) -> None:
        self.server = server
        self.gateway = gateway
        self._log_path = log_path
        self._supervisor: Supervisor | None = None
        self._gave_up: str | None = None
        self._text = ""

    def describe(self) -> str:
        """Return the last published state as text; empty before the first."""
        return self._text

    def publish(self) -> None:
        """Keep what is true now for those who ask, and write it into the state file."""
        restarts = None if self._supervisor is None else self._supervisor.restarts
        known = state.ServerState.of(self.server, self.gateway, restarts, self._gave_up)
        self._text = known.format()
        try:
            state.write_state(known)
        except OSError as error:  # who asks gets the answer without the file
            _logger.warning("%s cannot be written (%s)", state.state_path(), error.strerror)

    def supervise(self, *, start_timeout_s: float, most_restarts: int, beat: Callable[[], None]) -> None:
        """Watch, and start again what ends or hangs. It returns by exception alone.

        Raises:
            LycheeServerError: One of them failed too often.
        """
        children: list[Child] = [TritonChild(self.server)]
        if self.gateway is not None:
            children.append(GatewayChild(self.gateway))
        self._supervisor = Supervisor(
            children, start_timeout_s=start_timeout_s, most_restarts=most_restarts, publish=self.publish
        )
        most = most_bytes()

        def look_after_logs() -> None:
            beat()
            if self.server.log_path is not None:
                empty_large(self.server.log_path, most)
            if self._log_path is not None:
                rotate_own(self._log_path, (1, 2), most)

        try:
            self._supervisor.run(look_after_logs)
        except LycheeServerError as error:
            self._gave_up = str(error)
            raise

    def stop(self) -> None:
        """Stop both for good, whatever signals arrive meanwhile. Of them only a reason to give up stays known."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if self.gateway is not None:
            self.gateway.stop()
        if self.server.pid is None:
            return
        self.server.stop()
        if self._gave_up is None:
            state.clear_state()
        else:
            self.publish()


def configure_log() -> None:
    """Print what the supervisor does to standard error, with the time."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    _logger.addHandler(handler)
    _logger.setLevel(logging.INFO)
    _logger.propagate = False
