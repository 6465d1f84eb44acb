"""The state file: which server `lychee load` started last, for `lychee stop` and `lychee status`."""

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lychee_client.triton_key import STATE_FILE

from lychee_server import defaults
from lychee_server.errors import AlreadyRunningError
from lychee_server.gateway.process import GatewayProcess
from lychee_server.processes import find_process
from lychee_server.triton import TritonServer


@dataclass(frozen=True)
class GatewayState:
    """A gateway that was started beside a server."""

    pid: int
    create_time: float
    host: str
    port: int
    log_path: str

    @classmethod
    def of(cls, gateway: GatewayProcess) -> "GatewayState":
        """Describe a started gateway."""
        assert gateway.pid is not None
        return cls(gateway.pid, gateway.create_time, gateway.host, gateway.port, str(gateway.log_path))

    def is_running(self) -> bool:
        """Tell whether the process lives, and is not another one that got the same pid."""
        return find_process(self.pid, self.create_time) is not None


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
    gateway: GatewayState | None = None
    triton_key: str = field(default="", repr=False)

    @classmethod
    def of(cls, server: TritonServer, gateway: GatewayProcess | None = None) -> "ServerState":
        """Describe a started server, and the gateway if that was started too."""
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
            gateway=None if gateway is None or gateway.pid is None else GatewayState.of(gateway),
            triton_key=server.key,
        )

    def is_running(self) -> bool:
        """Tell whether the process lives, and is not another one that got the same pid."""
        return find_process(self.pid, self.create_time) is not None


def state_path() -> Path:
    """Return where the state file is, or would be."""
    return defaults.state_dir() / STATE_FILE


def read_state() -> ServerState | None:
    """Return the last server that was started and not stopped; None if there is none or the file is damaged."""
    try:
        data = json.loads(state_path().read_text(encoding="utf-8"))
        gateway = data.pop("gateway", None)
        return ServerState(**data, gateway=None if gateway is None else GatewayState(**gateway))
    except (AttributeError, FileNotFoundError, ValueError, TypeError):
        return None


def write_state(state: ServerState) -> None:
    """Write the state file, for this user alone; a reader sees the old one or the new one, never a part."""
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
        FolderError: The folder of the state cannot be written.
    """
    path = defaults.state_dir() / "load.lock"
    defaults.make_folder(path.parent, "LYCHEE_STATE_DIR")
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunningError(
                f"Another `lychee load` is starting a server ({path} is locked). Wait for it, or stop it with Ctrl-C."
            ) from error
        yield
