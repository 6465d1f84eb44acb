"""A Triton process with a model repository, from start to stop."""

import contextlib
import http.client
import json
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lychee_client.manifest import DEFAULT_ERROR_BUDGET

from lychee_server import defaults
from lychee_server.errors import LycheeServerError, ServerStartError
from lychee_server.execution import Choice, Device, Served, has_gpu, serve
from lychee_server.installation import TritonInstallation, assemble_backends
from lychee_server.local_http import fetch, reachable_host
from lychee_server.processes import (
    SHARED_MEMORY,
    ProcessId,
    StopReport,
    check_port,
    make_marker,
    pick_free_ports,
    start_process,
    stop_processes,
)
from lychee_server.repository import check_repository, describe_variant
from lychee_server.restrictions import restrict
from lychee_server.triton_messages import calm_log, clean_reason, find_reason, read_error_lines
from lychee_server.triton_tracing import trace_options

LOG_LEVELS = {
    "ERROR": ["--log-info=false", "--log-warning=false"],
    "WARNING": ["--log-info=false"],
    "INFO": [],
    "DEBUG": ["--log-verbose=1"],
}
POLL_INTERVAL_S = 0.1
MODEL_LOAD_THREADS = 8  # all models of a repository at once; more than the CPUs, because stubs wait for their imports
# More than `stop` waits before it kills: once, while a Triton ended, a call got an answer of the shape of another.
TRITON_EXIT_TIMEOUT_S = 30
# What each model's process begins with, where /dev/shm has at least so much; containers have 64 MiB. Triton takes 1 MiB
# and grows it with the first larger tensors, such as the tokenizer (32 photos of lychee-mini take 5 MiB). Servers crash
# after that now and then: https://github.com/triton-inference-server/server/issues/8882
SHARED_MEMORY_BYTES = {1024 * defaults.MIB: 16 * defaults.MIB, 64 * defaults.MIB: 4 * defaults.MIB}


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
        self._config_name = config_name
        self._error_budget = error_budget
        self._device = device
        self._served: Served | None = None
        self._detached = detached
        self._process: subprocess.Popen[bytes] | None = None
        self._command_line: list[str] = []
        self._environment: dict[str, str] = {}
        self._models: list[str] = []

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
    def choices(self) -> Mapping[str, Choice]:
        """What executes the models that left it open, and why; empty before the start."""
        return {} if self._served is None else self._served.choices

    @property
    def choice_note(self) -> str:
        """How it was chosen what executes the models; empty before the start, and if nothing was open."""
        return "" if self._served is None else self._served.note

    @property
    def variant_note(self) -> str:
        """What became of the variant that was asked for, if no model has it; else empty."""
        return describe_variant(self.repository, self._config_name)

    @property
    def models(self) -> list[str]:
        """Names of the repository's models; empty before the start."""
        return list(self._models)

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
        self._models = check_repository(self.repository, self._config_name)
        installation = TritonInstallation.find()
        cache_dir = defaults.usable_cache_dir()
        self._environment = installation.environment(os.environ, cache_dir)
        backends = assemble_backends(installation, cache_dir)
        self._served = serve(self.repository, self._config_name, self._error_budget, cache_dir, self._device)
        self._choose_ports()
        if self.log_path is None:
            handle, name = tempfile.mkstemp(prefix="lychee-triton-", suffix=".log")
            os.close(handle)
            self.log_path = Path(name)
        self._command_line = self._command(installation, backends)
        self._launch(append=False)

    def start_again(self) -> None:
        """Kill what is left of it, and start the same once more: same ports, same options, same choice of execution."""
        self.stop(timeout_s=0)
        self._launch(append=True)

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

    def _command(self, installation: TritonInstallation, backends: Path) -> list[str]:
        assert self._served is not None
        command = [
            str(installation.binary),
            f"--model-repository={self._served.path}",
            f"--backend-directory={backends}",
            f"--backend-config=python,shm-region-prefix-name={self.marker}",
            *_set_memory(),
            "--disable-auto-complete-config",
            "--exit-on-error=false",  # so that the repository index can tell why a model failed
            f"--exit-timeout-secs={TRITON_EXIT_TIMEOUT_S}",
            f"--model-load-thread-count={MODEL_LOAD_THREADS}",
            f"--http-address={self.host}",
            f"--http-port={self.http_port}",
            f"--grpc-address={self.host}",
            f"--grpc-port={self.grpc_port}",
            f"--metrics-address={self.host}",
            f"--metrics-port={self.metrics_port}",
            "--allow-gpu-metrics=false",
            *restrict(self.key),
            *trace_options(os.environ),
            *LOG_LEVELS[self.log_level],
        ]
        if self._config_name is not None:
            command.append(f"--model-config-name={self._config_name}")
        return command

    def wait_until_ready(self, timeout_s: float = defaults.DEFAULT_LOAD_TIMEOUT_S) -> None:
        """Wait until every model is loaded. Triton is left running if one is not; call `stop`.

        Raises:
            ServerStartError: Triton ended, a model failed to load, or the time is up.
        """
        assert self._process is not None, "call start() first"
        assert self.log_path is not None
        deadline = time.monotonic() + timeout_s
        while not self.is_up():
            if (code := self._process.poll()) is not None:
                ended = f"by signal {-code}" if code < 0 else f"with exit code {code}"
                raise ServerStartError(
                    f"Triton ended {ended} while loading {self.repository}. Last errors:",
                    log_path=self.log_path,
                    log_lines=read_error_lines(self.log_path),
                )
            if time.monotonic() > deadline:
                raise ServerStartError(
                    f"Triton was not ready after {timeout_s:g} s; expected all models loaded by then. "
                    "Give it more time with --timeout-s. Last errors:",
                    log_path=self.log_path,
                    log_lines=read_error_lines(self.log_path),
                )
            time.sleep(POLL_INTERVAL_S)
        if reasons := self.find_failed_models():
            raise ServerStartError(
                f"{len(reasons)} of {len(self._models)} models could not be loaded:",
                log_path=self.log_path,
                model_reasons=reasons,
            )

    def is_up(self, timeout_s: float = 5.0) -> bool:
        """Triton opens its endpoints, metrics last, after it has tried to load every model."""
        try:
            fetch(self.host, self.http_port, "GET", "/v2/health/live", timeout_s=timeout_s)
            fetch(self.host, self.metrics_port, "GET", "/metrics", timeout_s=timeout_s)
        except (OSError, http.client.HTTPException):
            return False
        return True

    def calm_log(self) -> None:
        """Turn what Triton has complained of for want of a GPU into notes."""
        if self.log_path is not None and not has_gpu():
            calm_log(self.log_path)

    def find_failed_models(self) -> dict[str, str]:
        """Return why each model of the repository that is not ready is not."""
        assert self.log_path is not None, "call start() first"
        self.calm_log()
        index = read_repository_index(self.host, self.http_port, self.key)
        ready = {entry["name"] for entry in index if entry.get("state") == "READY"}
        reasons = {entry["name"]: clean_reason(entry.get("reason", "")) for entry in index}
        failed = [name for name in self._models if name not in ready]
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
        """Start Triton and wait until it is ready."""
        try:
            self.start()
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


def _set_memory() -> list[str]:
    """Return the options that say with how much shared memory each model begins, and without a GPU no pinned one."""
    pinned = [] if has_gpu() else ["--pinned-memory-pool-byte-size=0"]
    with contextlib.suppress(OSError):
        total = shutil.disk_usage(SHARED_MEMORY).total
        for least, size_bytes in SHARED_MEMORY_BYTES.items():
            if total >= least:
                return [f"--backend-config=python,shm-default-byte-size={size_bytes}", *pinned]
    return pinned


def read_repository_index(host: str, http_port: int, key: str) -> list[dict[str, Any]]:
    """Return Triton's list of models: `name`, and where it tried to load one, `version`, `state` and `reason`."""
    index: list[dict[str, Any]] = json.loads(fetch(host, http_port, "POST", "/v2/repository/index", key=key))
    return index
