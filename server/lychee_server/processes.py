"""The operating system's side of a server: its processes, its shared memory, its ports.

Each server has a marker, a word that prefixes its shared memory regions. It stands in the command line of the server,
of each of its stubs and of its gateway, so it finds them all, whoever their parent is now, without clocks or files.
"""

import contextlib
import hashlib
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from lychee_server.addresses import family_of, find_problem
from lychee_server.errors import PortInUseError
from lychee_server.log_files import set_aside

SHARED_MEMORY = Path("/dev/shm")
KILL_TIMEOUT_S = 5.0
BACKLOG = 2048  # connections that wait until they are accepted
PROCESS_FILES = Path("/proc")
MARKER_LENGTH = 12
# Python ignores -X options that it does not know; this one puts the marker into a command line.
MARKER_OPTION = "-Xlychee="
# Starts a command so that the kernel ends it when the thread that started it ends: PR_SET_PDEATHSIG, SIGTERM.
_DIE_WITH_PARENT = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); "
    "os.getppid() == int(sys.argv[1]) and os.execv(sys.argv[2], sys.argv[2:])"
)


@dataclass(frozen=True)
class StopReport:
    """What stopping a server took: the processes that ended when asked, and those that had to be killed."""

    ended: tuple[int, ...]
    killed: tuple[int, ...]
    shared_memory_regions: int


def start_process(
    command: Sequence[str],
    *,
    log_path: Path,
    environment: Mapping[str, str],
    detached: bool,
    append: bool = False,
    keep_open: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, so that a Ctrl-C in the terminal reaches us, and we stop it.

    Args:
        command: The command line; its first part is a path.
        log_path: The file that gets what it prints; what another run has left there is set aside.
        environment: All of its variables.
        detached: It lives on when this process ends. Otherwise it ends with the thread that calls this, even with a
            killed one, if that is the main thread.
        append: Keep what the log holds already.
        keep_open: File descriptors that it inherits.
    """
    if not detached and threading.current_thread() is threading.main_thread():
        command = [sys.executable, "-ISc", _DIE_WITH_PARENT, str(os.getpid()), *command]
    log_path.parent.mkdir(parents=True, exist_ok=True)
    if not append:
        set_aside(log_path)
    with log_path.open("ab") as log:  # for appending, so that it can be emptied under the hands of who writes it
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
            pass_fds=keep_open,
        )


@dataclass(frozen=True)
class ProcessId:
    """One process, for good: a pid is used again, and the clock may be set, but ticks since boot never repeat.

    Attributes:
        pid: Its pid.
        start_ticks: When it started, in the kernel's clock ticks since boot.
    """

    pid: int
    start_ticks: int

    @classmethod
    def of(cls, pid: int) -> "ProcessId":
        """Identify the process that has this pid now.

        Raises:
            ProcessLookupError: None has.
        """
        return cls(pid, _read_stat(pid)[1])

    @property
    def uptime_s(self) -> float:
        """How long ago it started, whatever was done to the clock meanwhile."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.start_ticks / os.sysconf("SC_CLK_TCK")

    def is_running(self) -> bool:
        """Tell whether it lives, and is neither another one that got its pid, nor a zombie."""
        try:
            state, start_ticks = _read_stat(self.pid)
        except ProcessLookupError:
            return False
        return start_ticks == self.start_ticks and state not in "ZX"

    def find(self) -> psutil.Process | None:
        """Return it for psutil; None if it has ended."""
        try:
            return psutil.Process(self.pid) if self.is_running() else None
        except psutil.NoSuchProcess:
            return None


def _read_stat(pid: int) -> tuple[str, int]:
    """Return a process's state as a letter, and its start in clock ticks since boot."""
    try:
        text = (PROCESS_FILES / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError) as error:
        raise ProcessLookupError(f"no process has pid {pid}") from error
    fields = text.rpartition(")")[2].split()  # the name before it may hold spaces and brackets
    return fields[0], int(fields[19])


def stop_process(process: psutil.Process, *, timeout_s: float) -> bool:
    """End one process: ask, wait, kill. Return whether asking was enough."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.terminate()
    _, alive = psutil.wait_procs([process], timeout=timeout_s)
    for stubborn in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            stubborn.kill()
    psutil.wait_procs(alive, timeout=KILL_TIMEOUT_S)
    return not alive


def make_marker(folder: Path | None = None) -> str:
    """Return a marker: that of a state folder, the same each time for this user and machine, or else a new one."""
    if folder is None:
        return f"lychee_{secrets.token_hex(MARKER_LENGTH // 2)}_"
    identity = f"{socket.gethostname()}\0{os.getuid()}\0{folder}"  # containers may share their shared memory
    return f"lychee_{hashlib.sha256(identity.encode()).hexdigest()[:MARKER_LENGTH]}_"


def find_gateways(marker: str) -> list[psutil.Process]:
    """Return the running gateways of a server."""
    return _find(lambda process: any(part.startswith(MARKER_OPTION + marker) for part in process.cmdline()))


def find_processes(marker: str) -> list[psutil.Process]:
    """Return the running processes of a server, the server itself first, then its stubs by name."""
    found = _find(
        lambda process: process.name().startswith("triton") and any(marker in part for part in process.cmdline())
    )
    named = []
    for process in found:
        with contextlib.suppress(psutil.Error):
            named.append((not is_server(process), describe_process(process), process))
    return [process for *_, process in sorted(named, key=lambda item: item[:2])]


def _find(fits: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if fits(process):
                found.append(process)
    return found


def is_server(process: psutil.Process) -> bool:
    """Tell the server from its stubs."""
    return process.name() == "tritonserver"


def describe_process(process: psutil.Process) -> str:
    """Return `tritonserver`, or the model instance that a stub runs.

    Raises:
        psutil.NoSuchProcess: It has just ended.
    """
    if is_server(process):
        return "tritonserver"
    command = process.cmdline()
    if len(command) < 2:
        raise psutil.NoSuchProcess(process.pid)
    return command[-2]  # the stub's last arguments: instance name, backend folder


def stop_processes(marker: str, *, timeout_s: float) -> StopReport:
    """End the server and its stubs: ask, wait, kill. Then remove the shared memory that a killed one leaves.

    Args:
        marker: The server's marker.
        timeout_s: How many seconds the server gets to finish its requests.
    """
    processes = find_processes(marker)
    for process in processes:
        if is_server(process):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
    ended, alive = psutil.wait_procs(processes, timeout=timeout_s)  # orphaned stubs end by themselves within 3 s
    alive = [*alive, *(process for process in find_processes(marker) if process not in alive)]
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=KILL_TIMEOUT_S)
    regions = list(SHARED_MEMORY.glob(f"{marker}*"))
    for region in regions:
        region.unlink(missing_ok=True)
    return StopReport(tuple(process.pid for process in ended), tuple(process.pid for process in alive), len(regions))


def check_port(host: str, port: int, *, option: str, host_option: str = "--host") -> None:
    """Check that a port is free.

    Raises:
        PortInUseError: Another process listens there.
        SettingsError: This machine does not have the address, or this user not the right.
    """
    with socket.socket(family_of(host), socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if (problem := find_problem(error, host, port, option, host_option)) is not None:
                raise problem from error
            raise PortInUseError(
                f"Port {port} on {host} is not free ({error.strerror}){_describe_holder(port)}. "
                f"Stop that process, or choose another port with {option}.",
                port=port,
            ) from error


def listen(host: str, port: int, *, option: str = "--port", host_option: str = "--host") -> socket.socket:
    """Return a socket that listens; port 0 picks a free one. The options are those that choose it.

    Raises:
        PortInUseError: Another process holds the port.
        SettingsError: This machine does not have the address, or this user not the right.
    """
    check_port(host, port, option=option, host_option=host_option)
    listener = socket.socket(family_of(host), socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:  # taken since the check
        listener.close()
        raise PortInUseError(
            f"Port {port} on {host} is not free ({error.strerror}); see {option}.", port=port
        ) from error
    return listener


def pick_free_ports(host: str, count: int) -> Sequence[int]:
    """Return ports that nobody listens on, all different."""
    probes = [socket.socket(family_of(host), socket.SOCK_STREAM) for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((host, 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _describe_holder(port: int) -> str:
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status != psutil.CONN_LISTEN or not connection.laddr or not connection.pid:
                continue
            if connection.laddr.port == port:
                return f": {psutil.Process(connection.pid).name()} (pid {connection.pid}) holds it"
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        pass  # another user's process
    return ""
