"""The services of docker-compose.yml, and its gateway in front of a real Triton."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from deployment import dockerfile_command, dockerfile_environment, read_services
from lychee_server import TritonServer
from lychee_server.processes import pick_free_ports

from .service_processes import ServiceProcesses

HOST = "127.0.0.1"


@dataclass(frozen=True)
class GatewayLine:
    """The gateway's command line and environment, for this machine instead of a container."""

    command: list[str]
    environment: dict[str, str]
    url: str


@pytest.fixture(scope="session")
def services() -> dict[str, Any]:
    """Return the services as Docker Compose resolves them."""
    return read_services()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[ServiceProcesses]:
    """Start processes that end with the test."""
    with ServiceProcesses(tmp_path) as started:
        yield started


@pytest.fixture
def gateway_line(services: dict[str, Any], server: TritonServer) -> GatewayLine:
    """Return the command line of compose's gateway with Triton's addresses, the loopback and a free port."""
    return translate_gateway(services, server)


@pytest.fixture(scope="session")
def gateway_url(
    services: dict[str, Any], server: TritonServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Run compose's gateway until the end of the tests."""
    folder = tmp_path_factory.mktemp("gateway")
    line = translate_gateway(services, server)
    with ServiceProcesses(folder) as started:
        gateway = started.start(line.command, line.environment | {"LYCHEE_CACHE_DIR": str(folder / "cache")})
        gateway.wait_until_ok(f"{line.url}/health/ready")
        yield line.url


def translate_gateway(services: dict[str, Any], server: TritonServer) -> GatewayLine:
    """See `gateway_line`."""
    (port,) = pick_free_ports(HOST, 1)
    service = services["gateway"]
    given = {name: value for name, value in service["environment"].items() if value is not None}
    replaced = {
        "triton:8001": server.grpc_url,
        "0.0.0.0": HOST,
        "7860": str(port),
    }
    environment = {
        name: replaced.get(value, value) for name, value in (dockerfile_environment("gateway") | given).items()
    }
    assert set(replaced.values()) <= set(environment.values())
    # On the loopback, other than in its container, it asks for its names.
    environment["LYCHEE_GATEWAY_ALLOWED_HOSTS"] = "rerank.example.org"
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = service["command"] or dockerfile_command("gateway")
    return GatewayLine(command, environment, f"http://{HOST}:{port}")
