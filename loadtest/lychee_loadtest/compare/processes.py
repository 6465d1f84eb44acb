"""Servers of alternatives: started in a process group of their own, waited for, stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from .environments import PreparationError

__all__ = ["ENVIRONMENT", "pause", "pick_ports", "serve"]

ENVIRONMENT: Final = {
    "OMP_WAIT_POLICY": "PASSIVE",  # idle threads of torch spin otherwise, and take the cores from the others
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    "TOKENIZERS_PARALLELISM": "true",
}
"""Environment variables of every server and of the measuring process, alike for all."""

_START_TIMEOUT_S: Final = 240.0
_STOP_TIMEOUT_S: Final = 20.0
_POLL_INTERVAL_S: Final = 0.25
_LOG_TAIL_LINES: Final = 10


def pick_ports(count: int) -> list[int]:
    """Return free ports of the loopback."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def serve(
    command: Sequence[str], is_ready: Callable[[], bool], log_path: Path, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server, wait until it answers, yield its process, and stop it with all that it started.

    Args:
        command: What to start.
        is_ready: Is asked again and again; an OSError means no.
        log_path: The file for what it prints.
        environment: Environment variables that it gets besides ENVIRONMENT.

    Raises:
        PreparationError: It ended, or was not ready in time.
    """
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command,
            env=os.environ | ENVIRONMENT | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait(process, is_ready, log_path)
        yield process
    finally:
        _stop(process)


@contextmanager
def pause(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Let a server that `serve` runs take no CPU time for a while, with all that it started."""
    os.killpg(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGCONT)


def _wait(process: subprocess.Popen[bytes], is_ready: Callable[[], bool], log_path: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        with contextlib.suppress(OSError):
            if is_ready():
                return
        if process.poll() is not None:
            problem = f"ended with exit code {process.returncode}"
        elif time.monotonic() > deadline:
            problem = f"was not ready after {_START_TIMEOUT_S:g} s"
        else:
            time.sleep(_POLL_INTERVAL_S)
            continue
        tail = "\n".join(log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_TAIL_LINES:])
        raise PreparationError(f"{process.args!r} {problem}. The end of {log_path}:\n{tail}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_TIMEOUT_S)
    with contextlib.suppress(ProcessLookupError):  # children that outlive it
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
