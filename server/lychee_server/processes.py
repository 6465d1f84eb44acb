"""The operating system's side of a server: its processes, its shared memory, its ports.

Each server has a marker, a random word that prefixes its shared memory regions. It stands in the command line of the
server and of each of its stubs, so it finds them all, whoever their parent is now.
"""

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from lychee_server.errors import PortInUseError

SHARED_MEMORY = Path("/dev/shm")
KILL_TIMEOUT_S = 5.0
CREATE_TIME_TOLERANCE_S = 1.0  # psutil derives it from the boot time, which moves with the clock
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
    command: Sequence[str], *, log_path: Path, environment: Mapping[str, str], detached: bool
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, so that a Ctrl-C in the terminal reaches us, and we stop it.

    Args:
        command: The command line; its first part is a path.
        log_path: The file that gets what it prints, from the beginning.
        environment: All of its variables.
        detached: It lives on when this process ends. Otherwise it ends with the thread that calls this, even with a
            killed one, if that is the main thread.
    """
    if not detached and threading.current_thread() is threading.main_thread():
        command = [sys.executable, "-ISc", _DIE_WITH_PARENT, str(os.getpid()), *command]
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("wb") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def find_process(pid: int, create_time: float) -> psutil.Process | None:
    """Return the running process that had this pid at that time; None if it ended, even if another got its pid."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - create_time) < CREATE_TIME_TOLERANCE_S
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


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


def make_marker() -> str:
    """Return a new marker."""
    return f"lychee_{secrets.token_hex(6)}_"


def find_processes(marker: str) -> list[psutil.Process]:
    """Return the running processes of a server, the server itself first, then its stubs by name."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.name().startswith("triton") and any(marker in part for part in process.cmdline()):
                found.append((not is_server(process), describe_process(process), process))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return [process for *_, process in sorted(found, key=lambda item: item[:2])]


def is_server(process: psutil.Process) -> bool:
    """Tell the server from its stubs."""
    return process.name() == "tritonserver"


def describe_process(process: psutil.Process) -> str:
    """Return `tritonserver`, or the model instance that a stub runs."""
    if is_server(process):
        return "tritonserver"
    return process.cmdline()[-2]  # the stub's last arguments: instance name, backend folder


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


def check_port(host: str, port: int, *, option: str) -> None:
    """Check that a port is free.

    Raises:
        PortInUseError: Another process listens there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortInUseError(
                f"Port {port} on {host} is not free ({error.strerror}){_describe_holder(port)}. "
                f"Stop that process, or choose another port with {option}.",
                port=port,
            ) from error


def pick_free_ports(host: str, count: int) -> Sequence[int]:
    """Return ports that nobody listens on, all different."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    probes = [socket.socket(family, socket.SOCK_STREAM) for _ in range(count)]
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
