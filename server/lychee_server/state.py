"""What is known of the server that `lychee load` started last, for `lychee stop`, `lychee status` and others.

A server that runs says so itself (`presence`). The state file holds the same for one that ended without saying so.
"""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from lychee_client.triton_key import STATE_FILE

from lychee_server import defaults, presence
from lychee_server.errors import AlreadyRunningError
from lychee_server.gateway.process import GatewayProcess
from lychee_server.presence import Presence
from lychee_server.processes import ProcessId, make_marker


@dataclass(frozen=True)
class GatewayState:
    """A gateway that was started beside a server."""

    pid: int
    start_ticks: int
    host: str
    port: int
    log_path: str

    @classmethod
    def of(cls, gateway: GatewayProcess) -> "GatewayState":
        """Describe a started gateway."""
        process = gateway.process_id
        return cls(process.pid, process.start_ticks, gateway.host, gateway.port, str(gateway.log_path))

    @property
    def process(self) -> ProcessId:
        """Its process, which may have ended."""
        return ProcessId(self.pid, self.start_ticks)

    def is_running(self) -> bool:
        """Tell whether the process lives, and is not another one that got the same pid."""
        return self.process.is_running()


@dataclass(frozen=True)
class Restarts:
    """How often a process was started again, why the last time, and when (seconds since 1970)."""

    count: int
    reason: str
    at: float


@dataclass(frozen=True)
class TritonState:
    """One Triton that was started.

    Attributes:
        name: What its model is called among those of the server; empty where it is the only one.
        pid: It changes when Triton is started again. So does `start_ticks`.
        marker: What finds its processes, and no others.
        metrics_port: Where its metrics are for others.
        version: The version of the export that it serves; 0: it has none.
        config_name: The variant of the models' configurations.
    """

    name: str
    pid: int
    start_ticks: int
    marker: str
    host: str
    http_port: int
    grpc_port: int
    metrics_port: int
    repository: str
    log_path: str
    version: int = 0
    config_name: str | None = None

    @property
    def process(self) -> ProcessId:
        """Its process, which may have ended."""
        return ProcessId(self.pid, self.start_ticks)

    @property
    def process_name(self) -> str:
        """What its supervisor calls it."""
        return triton_process_name(self.name)


def triton_process_name(name: str) -> str:
    """Return what a supervisor calls the Triton of a model; the only one has no name."""
    return f"triton {name}" if name else "triton"


@dataclass(frozen=True)
class ServerState:
    """A server that was started: enough to find its processes, and only those.

    Attributes:
        tritons: Its Tritons, at least one; the first is that of the default model.
        marker: What finds the processes of all.
        supervisor: The process that starts them again.
        restarts: For each process that had to be started again.
        gave_up: Why the supervisor ended by itself; None if it did not.
        triton_key: What opens the restricted part of each Triton.
    """

    tritons: tuple[TritonState, ...]
    marker: str
    gateway: GatewayState | None = None
    supervisor: ProcessId | None = None
    restarts: dict[str, Restarts] = field(default_factory=dict)
    gave_up: str | None = None
    triton_key: str = field(default="", repr=False)

    @classmethod
    def of(
        cls,
        tritons: Sequence[TritonState],
        key: str,
        gateway: GatewayProcess | None = None,
        restarts: Mapping[str, Restarts] | None = None,
        gave_up: str | None = None,
    ) -> "ServerState":
        """Describe started Tritons, and the gateway if that was started too, from within their supervisor."""
        return cls(
            tritons=tuple(tritons),
            marker=own_marker(),
            gateway=None if gateway is None or gateway.pid is None else GatewayState.of(gateway),
            supervisor=ProcessId.of(os.getpid()),
            restarts=dict(restarts or {}),
            gave_up=gave_up,
            triton_key=key,
        )

    @classmethod
    def parse(cls, text: str) -> "ServerState | None":
        """Read what `format` wrote; None if it is anything else."""
        try:
            read = json.loads(text)
            data = {each.name: read[each.name] for each in fields(cls) if each.name in read}  # others have had more
            for name, kind in (("gateway", GatewayState), ("supervisor", ProcessId)):
                data[name] = None if data.get(name) is None else kind(**data[name])
            data["tritons"] = tuple(TritonState(**each) for each in data["tritons"])
            data["restarts"] = {name: Restarts(**each) for name, each in data.get("restarts", {}).items()}
            return cls(**data) if data["tritons"] else None
        except (AttributeError, KeyError, ValueError, TypeError):
            return None

    def format(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self), indent=2)

    @property
    def first(self) -> TritonState:
        """The Triton of the default model, or of the only one."""
        return self.tritons[0]

    def find_triton(self, port: int | None) -> TritonState | None:
        """Return the Triton that takes requests at a port of this machine."""
        return next((each for each in self.tritons if port in (each.grpc_port, each.http_port)), None)

    def is_running(self) -> bool:
        """Tell whether a Triton lives, or who would start it again."""
        processes = [*(each.process for each in self.tritons), *([self.supervisor] if self.supervisor else [])]
        return any(process.is_running() for process in processes)


def state_path() -> Path:
    """Return where the state file is, or would be."""
    return defaults.state_dir() / STATE_FILE


def own_marker() -> str:
    """Return the marker of the state folder: whatever runs for it has that marker."""
    return make_marker(defaults.state_dir())


def read_state() -> ServerState | None:
    """Return the server that runs, else the last one that was not stopped; None if there is none that is known."""
    found = presence.find(own_marker())
    said = None if found is None else ServerState.parse(found.text)
    return read_state_file() if said is None else said


def read_state_file() -> ServerState | None:
    """Return what the state file says; None if there is none or it is damaged."""
    try:
        return ServerState.parse(state_path().read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError):
        return None


def write_state(state: ServerState) -> None:
    """Write the state file, for this user alone; a reader sees the old one or the new one, never a part."""
    path = state_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".server-", suffix=".json")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(state.format())
    os.replace(name, path)


def clear_state() -> None:
    """Remove the state file if there is one."""
    state_path().unlink(missing_ok=True)


def claim() -> Presence:
    """Take the place of the one server of this state folder.

    Raises:
        AlreadyRunningError: Another process has it.
        FolderError: The folder of the state cannot be written.
    """
    defaults.make_folder(defaults.state_dir(), "LYCHEE_STATE_DIR")
    marker = own_marker()
    try:
        return Presence(marker)
    except OSError as error:
        found = presence.find(marker)
        known = None if found is None else ServerState.parse(found.text)
        if known is not None:
            raise AlreadyRunningError(
                f"A server runs already: {'; '.join(map(_describe, known.tritons))}. Stop it with `lychee stop`."
            ) from error
        holder = "Another process" if found is None else f"Another `lychee load` (pid {found.pid})"
        raise AlreadyRunningError(
            f"{holder} is starting or stopping a server for {defaults.state_dir()}. Wait for it, or run `lychee stop`."
        ) from error


def _describe(triton: TritonState) -> str:
    return f"pid {triton.pid}, gRPC on port {triton.grpc_port}, {triton.repository}"
