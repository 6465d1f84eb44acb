"""What surrounds a Ray: addresses, signals, and what killed runs left."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lychee_bulk import cluster
from lychee_bulk.cluster import PREFIX, connected, raise_on_sigterm
from lychee_bulk.errors import ClusterError


@pytest.fixture
def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def folders() -> Iterator[list[Path]]:
    """Make a folder as a run of a process that has ended leaves it, and one of this process."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    made = [Path(f"/tmp/{PREFIX}{number}-tested") for number in (ended.pid, os.getpid())]
    for folder in made:
        (folder / "session").mkdir(parents=True)
    yield made
    for folder in made:
        if folder.exists():
            (folder / "session").rmdir()
            folder.rmdir()


def test_an_address_where_nothing_answers_is_refused_at_once(free_port: int) -> None:
    for address in (f"127.0.0.1:{free_port}", f"[::1]:{free_port}", "127.0.0.1:99999", "no host:1"):
        with pytest.raises(ClusterError, match=r"no Ray cluster at .* HOST:PORT of the head node"), connected(address):
            pass


def test_sigterm_is_an_exception_and_the_old_handler_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match="143"), raise_on_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_only_folders_of_runs_that_have_ended_are_swept(folders: list[Path]) -> None:
    cluster._sweep()
    assert [folder.exists() for folder in folders] == [False, True]


def test_standard_error_is_silent_for_a_while(capfd: pytest.CaptureFixture[str]) -> None:
    os.write(2, b"before ")
    with cluster._silent_stderr():
        os.write(2, b"meanwhile ")
    os.write(2, b"after")
    assert capfd.readouterr().err == "before after"
