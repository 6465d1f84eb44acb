"""A gateway in a process of its own, as `lychee load` runs it beside Triton."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
from lychee_client.triton_key import KEY_VARIABLE

from lychee_server import defaults
from lychee_server.errors import ServerStartError
from lychee_server.gateway.settings import LogLevel, variable_of
from lychee_server.local_http import exchange, reachable_host
from lychee_server.processes import MARKER_OPTION, ProcessId, listen, start_process, stop_process
from lychee_server.triton import TritonServer
from lychee_server.triton_messages import read_error_lines

POLL_INTERVAL_S: Final = 0.25  # every refusal is a line in the log of the gateway
REQUEST_TIMEOUT_S: Final = 5.0
LISTENER_VARIABLE: Final = "LYCHEE_LISTEN_FD"  # the number of an inherited socket that listens already
LOG_VARIABLE: Final = "LYCHEE_GATEWAY_LOG"  # the file that standard output is
ERROR_LOG_VARIABLE: Final = variable_of("error_log")
LOG_LEVEL_VARIABLE: Final = variable_of("log_level")
DEFAULT_LOG_LEVEL: Final = "WARNING"


@dataclass(frozen=True, slots=True)
class GatewayChoice:
    """What `lychee load` decides about its gateway. Everything else comes from LYCHEE_GATEWAY_* variables.

    Attributes:
        host: The address to listen on.
        port: The port to listen on; 0 picks a free one.
        web: Whether to serve the page.
        max_img_size: See GatewaySettings.
        log_level: The log level; None leaves it to the variable, or else to DEFAULT_LOG_LEVEL.
        served_model_names: See GatewaySettings; empty leaves them to the variable, or to the file of the models.
    """

    host: str
    port: int
    web: bool
    max_img_size: int | None
    log_level: LogLevel | None
    served_model_names: tuple[str, ...] = ()


class GatewayProcess:
    """Runs `lychee gateway`, for one Triton or several.

    The socket that it listens on belongs to this process, and each gateway inherits it: while one gateway has ended and
    the next one has not begun, callers wait, and nobody else can take the port.

    Args:
        choice: What is particular about it.

    Attributes:
        log_path: The file with its JSON log.
        port: Where it listens; chosen by `listen`.
        process_id: Names the process for good; from the start on.
    """

    process_id: ProcessId

    def __init__(self, choice: GatewayChoice) -> None:
        self.log_path = defaults.state_dir() / "gateway.log"
        self.port = choice.port
        self._choice = choice
        self._listener: socket.socket | None = None
        self._command: list[str] = []
        self._key = ""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process id, None before the start."""
        return None if self._process is None else self._process.pid

    @property
    def host(self) -> str:
        """Address that it listens on."""
        return self._choice.host

    @property
    def url(self) -> str:
        """URL for a browser on this machine."""
        return f"http://{reachable_host(self.host)}:{self.port}"

    @property
    def has_page(self) -> bool:
        """Whether it serves the page."""
        return self._choice.web

    def listen(self) -> None:
        """Take the port, or pick a free one.

        Raises:
            PortInUseError: Another process holds it.
        """
        self._listener = listen(self.host, self.port)
        self.port = self._listener.getsockname()[1]

    def start(self, server: TritonServer, models: Path | None = None) -> None:
        """Start it; it waits for Triton itself.

        Args:
            server: The Triton, or the first of several, which all have the same key.
            models: The file of the models, where there are several.
        """
        choice = self._choice
        command = [sys.executable, MARKER_OPTION + server.marker, "-m", "lychee_server.gateway"]
        command += ["--triton-url", server.grpc_url] if models is None else ["--models", str(models)]
        for name in choice.served_model_names:
            command += ["--served-model-name", name]
        command += ["--host", self.host, "--port", str(self.port)]
        if choice.log_level is not None:
            command += ["--log-level", choice.log_level]
        command.append("--web" if choice.web else "--no-web")
        if choice.max_img_size is not None:
            command += ["--max-img-size", str(choice.max_img_size)]
        self._command, self._key = command, server.key
        self._launch(append=False)

    def start_again(self) -> None:
        """Kill what is left of it, and start the same once more."""
        self.kill()
        self._launch(append=True)

    def _launch(self, *, append: bool) -> None:
        assert self._listener is not None, "call listen() first"
        environment = {
            LOG_LEVEL_VARIABLE: DEFAULT_LOG_LEVEL,
            ERROR_LOG_VARIABLE: str(defaults.state_dir() / "gateway-errors.log"),
            **os.environ,
            LISTENER_VARIABLE: str(self._listener.fileno()),
            LOG_VARIABLE: str(self.log_path),
            KEY_VARIABLE: self._key,
        }
        self._process = start_process(
            self._command,
            log_path=self.log_path,
            environment=environment,
            detached=False,
            append=append,
            keep_open=[self._listener.fileno()],
        )
        self.process_id = ProcessId.of(self._process.pid)

    def poll(self) -> int | None:
        """Return its exit code if it has ended."""
        assert self._process is not None, "call start() first"
        return self._process.poll()

    def wait_until_ready(self, timeout_s: float) -> None:
        """Wait until it has replayed the golden pairs and takes requests.

        Raises:
            ServerStartError: It ended, or the time is up.
        """
        deadline = time.monotonic() + timeout_s
        while (reason := read_problem(self.host, self.port)) is not None:
            code = self.poll()
            if code is not None:
                raise ServerStartError(
                    f"The gateway ended with exit code {code} before it was ready. Last errors:",
                    log_path=self.log_path,
                    log_lines=read_error_lines(self.log_path),
                )
            if time.monotonic() > deadline:
                raise ServerStartError(
                    f"The gateway was not ready after {timeout_s:g} s: {reason}. Give it more time with --timeout-s.",
                    log_path=self.log_path,
                )
            time.sleep(POLL_INTERVAL_S)

    def kill(self) -> None:
        """End it at once, whatever it does."""
        assert self._process is not None, "call start() first"
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it: ask, wait until the calls in flight are answered, kill. Let go of the port, also before the start."""
        if self._listener is not None:
            self._listener.close()  # so that it goes with the gateway, and no caller waits for nobody
        if self._process is None or self._process.poll() is not None:
            return
        stop_process(psutil.Process(self._process.pid), timeout_s=defaults.GATEWAY_STOP_TIMEOUT_S)
        self._process.wait()


def read_problem(host: str, port: int) -> str | None:
    """Ask a gateway on this machine whether it is ready, with all its models. Return why not, or None if it is."""
    try:
        status, body = exchange(host, port, "GET", "/health/ready", timeout_s=REQUEST_TIMEOUT_S)
    except (OSError, http.client.HTTPException) as error:
        return f"it does not answer ({error})"
    try:
        return str(json.loads(body)["reason"])  # also with status 200, where one of several models is not ready
    except (ValueError, KeyError, TypeError):
        return None if status == http.client.OK else f"it answers with status {status}"
