"""The state file: which server `lychee load` started last, for `lychee stop` and `lychee status`."""

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from lychee_server import _config
from lychee_server._errors import AlreadyRunningError
from lychee_server.triton import TritonServer

CREATE_TIME_TOLERANCE_S = 1.0  # psutil derives it from the boot time, which moves with the clock


@dataclass(frozen=True)
class ServerState:
    """A server that was started: enough to find its process, and only that process."""

    pid: int
    create_time: float
    marker: str
    host: str
    http_port: int
    grpc_port: int
    metrics_port: int
    repository: str
    log_path: str

    @classmethod
    def of(cls, server: TritonServer) -> "ServerState":
        """Describe a started server."""
        assert server.pid is not None
        return cls(
            pid=server.pid,
            create_time=server.create_time,
            marker=server.marker,
            host=server.host,
            http_port=server.http_port,
            grpc_port=server.grpc_port,
            metrics_port=server.metrics_port,
            repository=str(server.repository),
            log_path=str(server.log_path),
        )

    def is_running(self) -> bool:
        """Tell whether the process lives, and is not another one that got the same pid."""
        try:
            process = psutil.Process(self.pid)
            return (
                process.status() != psutil.STATUS_ZOMBIE
                and abs(process.create_time() - self.create_time) < CREATE_TIME_TOLERANCE_S
            )
        except psutil.NoSuchProcess:
            return False


def state_path() -> Path:
    """Return where the state file is, or would be."""
    return _config.state_dir() / "server.json"


def read_state() -> ServerState | None:
    """Return the last server that was started and not stopped; None if there is none or the file is damaged."""
    try:
        return ServerState(**json.loads(state_path().read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def write_state(state: ServerState) -> None:
    """Write the state file; a reader sees the old one or the new one, never a part."""
    path = state_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".server-", suffix=".json")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(asdict(state), file, indent=2)
    os.replace(name, path)


def clear_state() -> None:
    """Remove the state file if there is one."""
    state_path().unlink(missing_ok=True)


@contextlib.contextmanager
def lock_state() -> Iterator[None]:
    """Keep a second `lychee load` away while the first one starts its server.

    Raises:
        AlreadyRunningError: Another process holds the lock.
    """
    path = _config.state_dir() / "load.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunningError(
                f"Another `lychee load` is starting a server ({path} is locked). Wait for it, or stop it with Ctrl-C."
            ) from error
        yield
