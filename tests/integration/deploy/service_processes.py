"""Command lines of docker-compose.yml as processes of this machine."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pytest
from deployment import ROOT, unescape

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; header names in lower case."""

    status: int
    body: bytes
    headers: dict[str, str]


def request(
    url: str, method: str = "GET", body: str | bytes | None = None, headers: Mapping[str, str] | None = None
) -> Answer:
    """Send one request, past any proxy settings, and return the answer."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=START_TIMEOUT_S)
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, response.read(), names)
    finally:
        connection.close()


@dataclass(frozen=True)
class ServiceProcess:
    """A process and the file with what it prints."""

    process: subprocess.Popen[bytes]
    log_path: Path

    @property
    def log(self) -> str:
        """What it has printed so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def wait_until_ok(self, url: str) -> None:
        """Poll until a URL answers with 200; fail when the process ends or the time is up."""
        deadline = time.monotonic() + START_TIMEOUT_S
        seen = "no answer"
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                answer = request(url)
            except (OSError, http.client.HTTPException) as error:
                seen = repr(error)
            else:
                if answer.status == http.client.OK:
                    return
                seen = f"{answer.status} {answer.body[:500]!r}"
            time.sleep(0.05)
        pytest.fail(f"{url}: {seen}; exit code {self.process.poll()}\n{self.log[-3000:]}")


class ServiceProcesses:
    """Starts processes, and ends them on the way out.

    Args:
        folder: For their logs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[ServiceProcess] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for service in reversed(self._started):
            service.process.terminate()
            try:
                service.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                service.process.kill()
                service.process.wait()

    def start(self, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> ServiceProcess:
        """Start a command line, with no variables but PATH and those that are given."""
        log_path = self._folder / f"service-{len(self._started)}.log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                command,
                env={"PATH": os.environ["PATH"], **(environment or {})},
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._started.append(ServiceProcess(process, log_path))
        return self._started[-1]


def health_command(service: dict[str, Any], ports: Mapping[int, int]) -> list[str]:
    """Return a service's health check with the ports of this machine."""
    kind, *words = service["healthcheck"]["test"]
    assert kind == "CMD"
    command = [unescape(word) for word in words]
    for port, here in ports.items():
        command = [re.sub(rf"\b{port}\b", str(here), word) for word in command]
    return command
