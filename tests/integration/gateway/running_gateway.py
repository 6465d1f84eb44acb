"""A gateway in a process of its own, as users start it."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 120.0


@dataclass
class RunningGateway:
    """A started gateway, and what it writes."""

    process: subprocess.Popen[bytes]
    output_path: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def lines(self) -> list[dict[str, Any]]:
        """Return the log so far; every line of it has to be JSON."""
        return [json.loads(line) for line in self.output_path.read_text(encoding="utf-8").splitlines()]

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
        """Ask once, on a connection of its own; return status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path, headers=headers or {})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def wait_for(self, path: str, expected: int) -> None:
        """Ask until this status comes."""
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while (status := self.get(path)[0]) != expected:
            assert self.process.poll() is None, self.output_path.read_text(encoding="utf-8")
            assert time.monotonic() < deadline_s, f"{path} answers {status}"
            time.sleep(0.05)


@contextmanager
def run_gateway(folder: Path, triton_url: str, *options: str, **environment: str) -> Iterator[RunningGateway]:
    """Start `lychee gateway` on a free port and wait until it listens; it is killed if it still runs at the end.

    Args:
        folder: For its output.
        triton_url: Of a running server.
        options: Of the command.
        environment: Further variables.
    """
    command = [sys.executable, "-m", "lychee_server.gateway", "--triton-url", triton_url, "--port", "0", *options]
    output_path, errors_path = folder / "gateway.out", folder / "gateway.err"
    with output_path.open("wb") as output, errors_path.open("wb") as errors:
        process = subprocess.Popen(command, stdout=output, stderr=errors, env=os.environ | environment)
    try:
        gateway = RunningGateway(process, output_path, _wait_for_port(process, output_path, errors_path))
        yield gateway
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _wait_for_port(process: subprocess.Popen[bytes], output_path: Path, errors_path: Path) -> int:
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    while True:
        for line in output_path.read_text(encoding="utf-8").splitlines():
            if '"listening"' in line:
                return int(json.loads(line)["port"])
        assert process.poll() is None, output_path.read_text(encoding="utf-8") + errors_path.read_text(encoding="utf-8")
        assert time.monotonic() < deadline_s, "the gateway does not listen"
        time.sleep(0.05)
