"""One real Triton with the exported repository for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lychee_client import LycheeClient
from lychee_server import TritonServer


@pytest.fixture(scope="session")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """Run Triton on free ports of the loopback, on the plain CPU provider: in float32, whatever the machine has."""
    log_path = tmp_path_factory.mktemp("triton") / "triton.log"
    ports = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
    with TritonServer(repository, config_name="cpu", **ports, log_path=log_path) as running:
        yield running


@pytest.fixture(scope="session")
def client(server: TritonServer) -> Iterator[LycheeClient]:
    """Connect to the running server."""
    with LycheeClient(server.grpc_url) as connected:
        yield connected
