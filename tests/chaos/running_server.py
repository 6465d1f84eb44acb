"""A server that `lychee load` keeps up, for tests that hurt it: its processes, its answers, what it leaves behind."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from lychee_server import processes, state
from lychee_server.gateway.process import read_problem

LYCHEE = str(Path(sys.executable).parent / "lychee")
FREE_PORTS = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0", "--port", "0")
WAIT_S = 150.0  # generous: the machine may be busy with other tests


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a user does."""
    return subprocess.run([LYCHEE, *arguments], capture_output=True, text=True, timeout=WAIT_S, check=False)


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """Return what the condition returns once that is true."""
    deadline = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {WAIT_S:g} s\n{log()}"
        time.sleep(0.1)
    return found


def log() -> str:
    """Return what the supervisor logged."""
    path = state.state_path().parent / "supervisor.log"
    return path.read_text(encoding="utf-8") if path.exists() else ""


class RunningServer:
    """Speaks for the server of the state folder, which must have a gateway."""

    @property
    def state(self) -> state.ServerState:
        """What it says of itself."""
        known = state.read_state()
        assert known is not None
        return known

    @property
    def gateway(self) -> state.GatewayState:
        """What it says of its gateway."""
        gateway = self.state.gateway
        assert gateway is not None
        return gateway

    def count_restarts(self, name: str) -> int:
        """Return how often it has started a process again."""
        restarts = self.state.restarts.get(name)
        return 0 if restarts is None else restarts.count

    def find_pid(self, target: str) -> int:
        """Return the pid of "triton", "gateway", "supervisor", "guard" or of the stub of a model."""
        if target == "triton":
            return self.state.first.pid
        if target == "gateway":
            return self.gateway.pid
        if target in ("supervisor", "guard"):
            supervisor = self.state.supervisor
            assert supervisor is not None
            return supervisor.pid if target == "supervisor" else psutil.Process(supervisor.pid).ppid()
        for process in processes.find_processes(state.own_marker()):
            with contextlib.suppress(psutil.NoSuchProcess):
                if processes.describe_process(process).startswith(f"{target}_"):
                    return process.pid
        raise ProcessLookupError(target)

    def send(self, target: str, number: signal.Signals) -> int:
        """Send a signal to one of its processes, and return the pid."""
        pid = self.find_pid(target)
        os.kill(pid, number)
        return pid

    def rerank(self, timeout_s: float = 30.0) -> tuple[int, dict[str, Any]]:
        """Ask, and return status and answer.

        Raises:
            OSError: It hung up.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=timeout_s)
        try:
            body = {"query": "一只猫", "documents": [f"a cup of coffee {secrets.token_hex(2)}", "小猫"]}  # in no cache
            connection.request("POST", "/v1/rerank", json.dumps(body), {"content-type": "application/json"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def is_ready(self) -> bool:
        """Ask the gateway whether it is."""
        return read_problem("127.0.0.1", self.gateway.port) is None

    def answers_right(self) -> bool:
        """Ask; an answer is right, or it is a 5xx, or there is none."""
        try:
            status, answer = self.rerank()
        except (OSError, http.client.HTTPException):
            return False
        if status == 200:
            assert [result["index"] for result in answer["results"]] == [1, 0], answer
            return True
        assert status in (502, 503, 504), answer
        return False

    def wait_until_back(self, target: str, ended: int) -> None:
        """Wait until another process has the place of one that ended, and the answers are right again."""

        def is_there() -> bool:
            with contextlib.suppress(ProcessLookupError):
                return self.find_pid(target) != ended and not psutil.pid_exists(ended)
            return False

        wait_for(is_there, f"another {target}")
        wait_for(self.is_ready, f"a ready server after {target}")
        wait_for(self.answers_right, f"a right answer after {target}")

    def check_tidy(self) -> None:
        """Check that each process is there once, and a region of shared memory for each stub."""
        marker = state.own_marker()
        found = processes.find_processes(marker)
        servers = [process for process in found if processes.is_server(process)]
        assert [process.pid for process in servers] == [self.state.first.pid]
        assert {process.ppid() for process in found if process not in servers} == {self.state.first.pid}
        assert [process.pid for process in processes.find_gateways(marker)] == [self.gateway.pid]
        assert len(list(processes.SHARED_MEMORY.glob(f"{marker}*"))) == len(found) - 1


def find_leftovers() -> list[str]:
    """Name the processes and regions of shared memory that belong to the state folder."""
    marker = state.own_marker()
    found = [*processes.find_processes(marker), *processes.find_gateways(marker)]
    regions = processes.SHARED_MEMORY.glob(f"{marker}*")
    return [str(process) for process in found] + [str(region) for region in regions]
