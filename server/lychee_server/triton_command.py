"""The command line of a Triton."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lychee_server import defaults
from lychee_server.execution import has_gpu
from lychee_server.installation import TritonInstallation
from lychee_server.processes import SHARED_MEMORY
from lychee_server.restrictions import restrict
from lychee_server.triton_tracing import trace_options

__all__ = ["LOG_LEVELS", "SHARED_MEMORY_BYTES", "TritonOptions", "build_command"]

LOG_LEVELS: Final = {
    "ERROR": ["--log-info=false", "--log-warning=false"],
    "WARNING": ["--log-info=false"],
    "INFO": [],
    "DEBUG": ["--log-verbose=1"],
}
MODEL_LOAD_THREADS: Final = 8  # all of a repository at once; more than the CPUs, because stubs wait for their imports
# More than `stop` waits before it kills: once, while a Triton ended, a call got an answer of the shape of another.
TRITON_EXIT_TIMEOUT_S: Final = 30
# What each model's process begins with, where /dev/shm has at least so much; containers have 64 MiB. Triton takes 1 MiB
# and grows it with the first larger tensors, such as the tokenizer (32 photos of lychee-mini take 5 MiB). Servers crash
# after that now and then: https://github.com/triton-inference-server/server/issues/8882
SHARED_MEMORY_BYTES: Final = {1024 * defaults.MIB: 16 * defaults.MIB, 64 * defaults.MIB: 4 * defaults.MIB}
# Another Triton may listen beside this one, and models can be unloaded one by one, by whoever has the key.
_REPLACEABLE: Final = (
    "--reuse-http-port=true",
    "--reuse-grpc-port=true",
    "--model-control-mode=explicit",
    "--load-model=*",
)


@dataclass(frozen=True, slots=True)
class TritonOptions:
    """What is particular about one Triton; see TritonServer."""

    host: str
    http_port: int
    grpc_port: int
    metrics_port: int
    marker: str
    key: str
    log_level: str
    config_name: str | None
    replaceable: bool


def build_command(
    installation: TritonInstallation, backends: Path, repository: Path, options: TritonOptions
) -> list[str]:
    """Return the command line that serves a repository."""
    command = [
        str(installation.binary),
        f"--model-repository={repository}",
        f"--backend-directory={backends}",
        f"--backend-config=python,shm-region-prefix-name={options.marker}",
        *_set_memory(),
        "--disable-auto-complete-config",
        "--exit-on-error=false",  # so that the repository index can tell why a model failed
        f"--exit-timeout-secs={TRITON_EXIT_TIMEOUT_S}",
        f"--model-load-thread-count={MODEL_LOAD_THREADS}",
        f"--http-address={options.host}",
        f"--http-port={options.http_port}",
        f"--grpc-address={options.host}",
        f"--grpc-port={options.grpc_port}",
        f"--metrics-address={options.host}",
        f"--metrics-port={options.metrics_port}",
        "--allow-gpu-metrics=false",
        *restrict(options.key),
        *trace_options(os.environ),
        *LOG_LEVELS[options.log_level],
    ]
    if options.config_name is not None:
        command.append(f"--model-config-name={options.config_name}")
    if options.replaceable:
        command += _REPLACEABLE
    return command


def _set_memory() -> list[str]:
    """Return the options that say with how much shared memory each model begins, and without a GPU no pinned one."""
    pinned = [] if has_gpu() else ["--pinned-memory-pool-byte-size=0"]
    with contextlib.suppress(OSError):
        total = shutil.disk_usage(SHARED_MEMORY).total
        for least, size_bytes in SHARED_MEMORY_BYTES.items():
            if total >= least:
                return [f"--backend-config=python,shm-default-byte-size={size_bytes}", *pinned]
    return pinned
