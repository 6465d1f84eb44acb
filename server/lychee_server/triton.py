"""A Triton process with a model repository, from start to stop."""

import http.client
import logging
import os
import secrets
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from lychee_client.manifest import DEFAULT_ERROR_BUDGET

from lychee_server import defaults
from lychee_server.errors import LycheeServerError, ServerStartError
from lychee_server.execution import Device, has_gpu
from lychee_server.installation import TritonInstallation, assemble_backends
from lychee_server.local_http import fetch, reachable_host
from lychee_server.processes import (
    ProcessId,
    StopReport,
    check_port,
    make_marker,
    pick_free_ports,
    start_process,
    stop_processes,
)
from lychee_server.served_export import ServedExport
from lychee_server.steering import reserve
from lychee_server.triton_admin import read_repository_index
from lychee_server.triton_command import TritonOptions, build_command
from lychee_server.triton_messages import calm_log, clean_reason, find_reason, read_error_lines

POLL_INTERVAL_S = 0.1

_logger = logging.getLogger("lychee_server")


class TritonServer:
    """Runs the Triton of the `nvidia-pytriton` wheel, without Docker, in a process group of its own.

    As a context manager it starts Triton, waits until it is ready, and stops it on the way out. Without, call `start`,
    `wait_until_ready` and `stop`.

    Attributes:
        http_url: Host and port of the HTTP endpoint, for clients; likewise `grpc_url`.
        metrics_url: URL of the Prometheus metrics.
        log_path: The file with what Triton and its backends print.
        pid: Process id, None before the start.
        marker: What finds the server's processes and shared memory; see `lychee_server.processes`.
        key: What opens the restricted part of Triton, in the header KEY_HEADER.
        process_id: Names the process for good; from the start on.
        export: What it serves.
    """

    process_id: ProcessId

    def __init__(
        self,
        repository: str | Path,
        *,
        host: str = defaults.DEFAULT_HOST,
        http_port: int = defaults.DEFAULT_HTTP_PORT,
        grpc_port: int = defaults.DEFAULT_GRPC_PORT,
        metrics_port: int = defaults.DEFAULT_METRICS_PORT,
        config_name: str | None = None,
        error_budget: float = DEFAULT_ERROR_BUDGET,
        device: Device = "auto",
        log_path: str | Path | None = None,
        log_level: str = "WARNING",
        detached: bool = False,
        key: str | None = None,
        marker: str | None = None,
        replaceable: bool = False,
    ) -> None:
        """Choose how Triton will run; nothing starts yet.

        Args:
            repository: The folder with the models.
            host: The address to listen on.
            http_port: 0 picks a free port at the start; likewise `grpc_port` and `metrics_port`.
            grpc_port: See `http_port`.
            metrics_port: See `http_port`.
            config_name: The name of a variant in the models' `configs/`; None takes each `config.pbtxt`.
            error_budget: How far a score may be from the reference's for the sake of speed; with 0 every model computes
                in float32. For models that leave open what executes them.
            device: Where the encoders may run: on a GPU if they were exported for one or are fastest there ("auto"),
                on the CPU, or on a GPU and nowhere else ("cuda").
            log_path: None makes a file in the system's folder for temporary files.
            log_level: One of LOG_LEVELS.
            detached: Triton lives on when this process ends. Otherwise it ends with it, even with a killed one, if
                `start` is called in the main thread.
            key: See TritonServer; None makes one up.
            marker: None makes a new one.
            replaceable: Another one may be started beside it on its ports, and take its place; see `make_successor`.
        """
        self.repository = Path(repository).absolute()
        self.host = host
        self.http_port = http_port
        self.grpc_port = grpc_port
        self.metrics_port = metrics_port
        self.log_level = log_level
        self.log_path = Path(log_path).absolute() if log_path is not None else None
        self.marker = make_marker() if marker is None else marker
        self.key = key or secrets.token_hex(16)
        self.export = ServedExport(self.repository, config_name, error_budget, device)
        self._detached = detached
        self._replaceable = replaceable
        self._keepers: list[socket.socket] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._command_line: list[str] = []
        self._environment: dict[str, str] = {}

    @property
    def pid(self) -> int | None:
        """Process id, None before the start."""
        return None if self._process is None else self._process.pid

    @property
    def http_url(self) -> str:
        """Host and port of the HTTP endpoint."""
        return f"{reachable_host(self.host)}:{self.http_port}"

    @property
    def grpc_url(self) -> str:
        """Host and port of the gRPC endpoint."""
        return f"{reachable_host(self.host)}:{self.grpc_port}"

    @property
    def metrics_url(self) -> str:
        """URL of the Prometheus metrics."""
        return f"http://{reachable_host(self.host)}:{self.metrics_port}/metrics"

    @property
    def models(self) -> list[str]:
        """Names of the repository's models; empty before the start."""
        return list(self.export.models)

    def start(self) -> None:
        """Check what Triton needs, and start it. It loads its models when this returns.

        Raises:
            RepositoryError: The repository or a model file is missing.
            InstallationError: Triton is not installed completely.
            DeviceError: The models are to run on a GPU, and none can be used.
            PortInUseError: Another process holds one of the ports.
            LycheeServerError: This object was started before.
        """
        if self._process is not None:
            raise LycheeServerError("This TritonServer was started before; make a new one.")
        self.export.prepare()
        self.launch()

    def launch(self) -> None:
        """Start what `export.prepare` has prepared. It loads its models when this returns.

        Raises:
            InstallationError: Triton is not installed completely.
            PortInUseError: Another process holds one of the ports.
        """
        succeeds = bool(self._keepers)
        if succeeds:
            (self.metrics_port,) = pick_free_ports(self.host, 1)
        else:
            self._choose_ports()
        if self.log_path is None:
            handle, name = tempfile.mkstemp(prefix="lychee-triton-", suffix=".log")
            os.close(handle)
            self.log_path = Path(name)
        self._make_command()
        self._launch(append=succeeds)

    def start_again(self) -> None:
        """Kill what is left of it, and start the same once more: same export, ports, options and choice of execution.

        An export whose place another one took is served from where it is now.

        Raises:
            LycheeServerError: It cannot be served any more.
        """
        self.stop(timeout_s=0)
        if self.export.has_moved():
            self.export.prepare()
            self._make_command()
        self._launch(append=True)

    def make_successor(self, repository: Path, config_name: str | None, marker: str) -> "TritonServer":
        """Return another one for the same ports, to be started beside this one.

        It shares key, log and options. Its metrics are on a port of its own.

        Args:
            repository: See TritonServer.
            config_name: See TritonServer.
            marker: Another one than this one's.
        """
        successor = TritonServer(
            repository,
            host=self.host,
            http_port=self.http_port,
            grpc_port=self.grpc_port,
            config_name=config_name,
            error_budget=self.export.error_budget,
            device=self.export.device,
            log_path=self.log_path,
            log_level=self.log_level,
            detached=self._detached,
            key=self.key,
            marker=marker,
            replaceable=True,
        )
        successor._keepers = self._keepers
        return successor

    def _launch(self, *, append: bool) -> None:
        assert self.log_path is not None
        self._process = start_process(
            self._command_line,
            log_path=self.log_path,
            environment=self._environment,
            detached=self._detached,
            append=append,
        )
        self.process_id = ProcessId.of(self._process.pid)

    def _choose_ports(self) -> None:
        names = ("http_port", "grpc_port", "metrics_port")
        for name in names:
            if port := getattr(self, name):
                check_port(self.host, port, option=f"--{name.replace('_', '-')}", host_option="--triton-host")
        free = [name for name in names if getattr(self, name) == 0]
        for name, port in zip(free, pick_free_ports(self.host, len(free)), strict=True):
            setattr(self, name, port)
        if self._replaceable:  # who shares a port shares it with whoever asks
            self._keepers = [reserve(self.host, port) for port in (self.http_port, self.grpc_port)]

    def _make_command(self) -> None:
        installation = TritonInstallation.find()
        cache_dir = defaults.usable_cache_dir()
        self._environment = installation.environment(os.environ, cache_dir)
        ports = self.http_port, self.grpc_port, self.metrics_port
        options = TritonOptions(
            self.host, *ports, self.marker, self.key, self.log_level, self.export.config_name, self._replaceable
        )
        backends = assemble_backends(installation, cache_dir)
        self._command_line = build_command(installation, backends, self.export.path, options)

    def wait_until_ready(self, timeout_s: float = defaults.DEFAULT_LOAD_TIMEOUT_S) -> None:
        """Wait until every model is loaded. Triton is left running if one is not; call `stop`.

        Raises:
            ServerStartError: Triton ended, a model failed to load, or the time is up.
        """
        for _ in self.waiting(timeout_s):
            time.sleep(POLL_INTERVAL_S)
        self.check_models()

    def waiting(self, timeout_s: float) -> Iterator[None]:
        """Yield until Triton has tried to load every model; raise ServerStartError as `wait_until_ready` does."""
        assert self._process is not None, "call start() first"
        assert self.log_path is not None
        deadline = time.monotonic() + timeout_s
        while not self.is_up():
            if (code := self._process.poll()) is not None:
                ended = f"by signal {-code}" if code < 0 else f"with exit code {code}"
                problem = f"Triton ended {ended} while loading {self.repository}."
            elif time.monotonic() > deadline:
                problem = (
                    f"Triton was not ready after {timeout_s:g} s; expected all models loaded by then. "
                    "Give it more time with --timeout-s."
                )
            else:
                yield
                continue
            lines = read_error_lines(self.log_path)
            raise ServerStartError(f"{problem} Last errors:", log_path=self.log_path, log_lines=lines)

    def check_models(self, http_port: int | None = None) -> None:
        """Check that every model is loaded.

        Args:
            http_port: Where to ask; None asks at the server's own port.

        Raises:
            ServerStartError: A model failed to load.
        """
        assert self.log_path is not None
        if reasons := self.find_failed_models(http_port):
            raise ServerStartError(
                f"{len(reasons)} of {len(self.models)} models could not be loaded:",
                log_path=self.log_path,
                model_reasons=reasons,
            )

    def is_up(self, timeout_s: float = 5.0) -> bool:
        """Triton opens its endpoints, metrics last, after it has tried to load every model."""
        try:
            fetch(self.host, self.metrics_port, "GET", "/metrics", timeout_s=timeout_s)
        except (OSError, http.client.HTTPException):
            return False
        return True

    def calm_log(self) -> None:
        """Turn what Triton has complained of for want of a GPU into notes."""
        if self.log_path is not None and not has_gpu():
            calm_log(self.log_path)

    def find_failed_models(self, http_port: int | None = None) -> dict[str, str]:
        """Return why each model of the repository that is not ready is not; see `check_models`."""
        assert self.log_path is not None, "call start() first"
        self.calm_log()
        index = read_repository_index(self.host, http_port or self.http_port, self.key)
        ready = {entry["name"] for entry in index if entry.get("state") == "READY"}
        reasons = {entry["name"]: clean_reason(entry.get("reason", "")) for entry in index}
        failed = [name for name in self.models if name not in ready]
        return {name: reasons.get(name) or find_reason(self.log_path, name) for name in failed}

    def stop(self, timeout_s: float = defaults.DEFAULT_STOP_TIMEOUT_S) -> StopReport:
        """End Triton and its stubs: ask, wait, kill. Harmless if it was never started, or has ended.

        Args:
            timeout_s: How many seconds Triton gets to finish the requests in flight.
        """
        report = stop_processes(self.marker, timeout_s=timeout_s)
        if self._process is not None:
            if self._process.poll() is None:  # between fork and exec, when the marker does not find it yet
                self._process.kill()
            self._process.wait()
        return report

    def poll(self) -> int | None:
        """Return Triton's exit code if it has ended, negative for a signal."""
        assert self._process is not None, "call start() first"
        return self._process.poll()

    def __enter__(self) -> Self:
        """Start Triton and wait until it is ready. One that still loads when the time is up is started once more.

        Triton 2.51 was seen to hang so, once in hundreds of starts, with nothing in its log.
        """
        try:
            self.start()
            try:
                self.wait_until_ready()
            except ServerStartError as error:
                assert self._process is not None
                if self._process.poll() is not None or self.is_up():
                    raise
                _logger.warning("%s It is started once more.", error)
                self.start_again()
                self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop Triton."""
        self.stop()
