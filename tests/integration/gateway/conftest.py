"""One real gateway, as users start it, in front of the real Triton."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from lychee_server import TritonServer

from .running_gateway import RunningGateway, run_gateway

API_KEY = "key-of-the-integration-tests"

Post = Callable[[str, dict[str, Any]], httpx.Response]


@pytest.fixture(scope="session")
def gateway(server: TritonServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """Run a gateway that wants an API key."""
    folder = tmp_path_factory.mktemp("gateway")
    options = ("--no-web", "--timeout-s", "120")  # a thousand documents on a busy machine
    with run_gateway(folder, server.grpc_url, *options, LYCHEE_GATEWAY_API_KEYS=API_KEY) as running:
        running.wait_for("/health/ready", 200)
        yield running


@pytest.fixture(scope="session")
def post(gateway: RunningGateway) -> Iterator[Post]:
    """Send JSON with the API key."""
    headers = {"authorization": f"Bearer {API_KEY}"}
    with httpx.Client(base_url=gateway.url, headers=headers, timeout=120, trust_env=False) as client:
        yield lambda path, body: client.post(path, json=body)
