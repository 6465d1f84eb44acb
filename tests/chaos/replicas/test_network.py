"""The machines of these tests are on no network but their own, and nothing of them is left at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from chaos.replicas.network import DOMAIN, FILES, PREFIX, Network, find_missing

MISSING = find_missing()
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)
# A test that is ended in the middle, before it could clean up.
KILLED = """
import os, signal, sys, pathlib
from chaos.replicas.network import Network
with Network(pathlib.Path(sys.argv[1])) as network:
    network.add("one")
    print(network.start("one", ["sleep", "600"]).pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def addresses(network: Network, machine: str) -> set[str]:
    """Return what a machine is told for the name of the service; empty where there is no such name."""
    script = f"import socket; print(*{{a[4][0] for a in socket.getaddrinfo('service.{DOMAIN}', 1)}})"
    try:
        return set(network.run(machine, sys.executable, "-ISc", script).split())
    except AssertionError:
        return set()


def leftovers(pid: int) -> list[str]:
    """Name what a test process has left behind."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout.split()
    files = [path.name for path in FILES.iterdir()] if FILES.exists() else []
    return [name for name in (*listed, *files) if name.startswith(f"{PREFIX}-{pid}-")]


def test_a_name_has_the_addresses_that_were_published(tmp_path: Path) -> None:
    with Network(tmp_path) as network:
        one, two = network.add("one"), network.add("two")
        network.publish("service", one, two)
        assert addresses(network, "one") == {one, two}
        network.publish("service", two)
        assert addresses(network, "one") == {two}
        network.run("one", "ip", "link", "show", "eth0")
        assert "default" not in network.run("one", "ip", "route")
    assert leftovers(os.getpid()) == []


def test_an_unreachable_machine_hears_and_says_nothing(tmp_path: Path) -> None:
    with Network(tmp_path) as network:
        address = network.add("one")
        network.publish("service", address)
        with network.unreachable("one"):
            assert addresses(network, "one") == set()
        assert addresses(network, "one") == {address}


def test_nothing_is_left_of_a_test_that_was_killed(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    killed = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    started = int(killed.communicate()[0])
    assert killed.returncode == -signal.SIGKILL
    with Network(tmp_path / "next"):
        pass
    assert leftovers(killed.pid) == []
    assert not psutil.pid_exists(started) or psutil.Process(started).status() == psutil.STATUS_ZOMBIE
