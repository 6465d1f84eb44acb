"""The command `lychee`, as a user runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from lychee_server import state

LYCHEE = str(Path(sys.executable).parent / "lychee")
FREE_PORTS = ["--http-port", "0", "--grpc-port", "0", "--metrics-port", "0", "--port", "0"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([LYCHEE, *arguments], capture_output=True, text=True, timeout=300, check=False)


def load(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("load", "--repository", str(repository), *FREE_PORTS, *arguments)


def read_state() -> state.ServerState:
    """Return what is known of the server, which has been started."""
    known = state.read_state()
    assert known is not None
    return known
