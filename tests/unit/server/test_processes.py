"""Ports, and processes that a marker finds."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import psutil
import pytest
from lychee_server import PortInUseError, processes
from lychee_server.errors import SettingsError


def test_a_taken_port_names_its_holder_and_the_option() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(PortInUseError, match=rf"Port {port} .*pid {os.getpid()}.*--grpc-port") as caught:
            processes.check_port("127.0.0.1", port, option="--grpc-port")
    assert caught.value.port == port
    processes.check_port("127.0.0.1", port, option="--grpc-port")


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"--triton-host is '192\.0\.2\.1', which is no address of this machine"):
        processes.check_port("192.0.2.1", 8000, option="--http-port", host_option="--triton-host")


def test_picked_ports_differ() -> None:
    assert len(set(processes.pick_free_ports("127.0.0.1", 20))) == 20


def start(folder: Path, name: str, program: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a shell under the name of one of Triton's programs."""
    shell = folder / name
    if not shell.exists():
        shutil.copy("/bin/bash", shell)
    return subprocess.Popen([str(shell), "-c", program, *arguments])


def test_stop_finds_server_and_stubs_and_kills_the_deaf(tmp_path: Path) -> None:
    marker = processes.make_marker()
    region = processes.SHARED_MEMORY / f"{marker}region"
    region.touch()
    deaf = "trap '' TERM; echo > $3; while :; do sleep 0.1; done"
    ready = [tmp_path / "ready1", tmp_path / "ready2"]
    with (
        start(tmp_path, "tritonserver", deaf, "x", f"prefix={marker}", "y", str(ready[0])) as server,
        start(tmp_path, "triton_python_backend_stub", deaf, "x", f"{marker}1", "name_0_0", str(ready[1])) as stub,
        start(tmp_path, "tritonserver", "read", "x", "other_marker") as other,
    ):
        while not all(path.exists() for path in ready):
            assert server.poll() is None
        found = processes.find_processes(marker)
        assert [process.pid for process in found] == [server.pid, stub.pid]
        assert [processes.describe_process(process) for process in found] == ["tritonserver", "name_0_0"]
        report = processes.stop_processes(marker, timeout_s=0.1)
        assert psutil.pid_exists(other.pid)
        other.kill()
    assert (report.ended, set(report.killed)) == ((), {server.pid, stub.pid})
    assert report.shared_memory_regions == 1
    assert not region.exists()


def test_stop_of_a_server_that_is_gone_does_nothing() -> None:
    assert processes.stop_processes(processes.make_marker(), timeout_s=1) == processes.StopReport((), (), 0)
