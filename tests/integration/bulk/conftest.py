"""A Ray for several runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from lychee_bulk.cluster import QUIET

from .bulk_runs import WAIT_S, environment


@dataclass
class RayCluster:
    """A running cluster.

    Attributes:
        address: What `--address` takes.
        process: The process that runs it.
    """

    address: str
    process: subprocess.Popen[str]

    def lose_node(self) -> None:
        """Kill a node that is not the head."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("lose\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "lost\n"


StartCluster = Callable[[int], RayCluster]


@pytest.fixture(scope="module")
def start_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartCluster]:
    """Return what starts a cluster of so many nodes."""
    with ExitStack() as stack:

        def start(nodes: int) -> RayCluster:
            command = [sys.executable, str(Path(__file__).with_name("ray_cluster.py")), str(nodes)]
            log = stack.enter_context((tmp_path_factory.mktemp("ray") / "log").open("w"))
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
            process = subprocess.Popen(command, **pipes, text=True, env=environment() | QUIET)  # type: ignore[call-overload]
            stack.callback(process.communicate, timeout=WAIT_S)  # its input ends, and so does it
            address = process.stdout.readline().strip()
            assert address, Path(log.name).read_text()
            return RayCluster(address, process)

        yield start
