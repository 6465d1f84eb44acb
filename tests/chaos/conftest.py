"""What the tests share: for fuzzing the whole gateway in this process, in front of a server that computes simple
scores; for faults one real server, which `lychee load` has started in a state folder of its own.

The long runs are `make chaos`'s, which sets LYCHEE_CHAOS; `make test` leaves them out.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.dual_encoder import FakeTransport
from fastapi import FastAPI
from fastapi.testclient import TestClient
from lychee_server.gateway.app import create_app
from lychee_server.gateway.service import Service
from lychee_server.gateway.settings import GatewaySettings

from chaos.running_server import FREE_PORTS, RunningServer, find_leftovers, run

IS_CHAOS = os.environ.get("LYCHEE_CHAOS") == "1"
URL = "http://127.0.0.1:7860"
ERROR_KEYS = {"message", "detail", "type", "param", "request_id", "error"}

Call = Callable[[str, bytes], tuple[int, Any]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the long runs."""
    if not IS_CHAOS:
        for item in items:
            if item.get_closest_marker("chaos"):
                item.add_marker(pytest.mark.skip(reason="takes minutes; `make chaos` runs it"))


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """Make a gateway without keys and without a page."""

    async def make() -> FastAPI:
        settings = GatewaySettings(web=False, max_documents=100, max_request_mb=8, image_hosts=("*.wild.example",))
        return create_app(settings, service=Service(settings, transport=FakeTransport()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LYCHEE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        return asyncio.run(make())


@pytest.fixture(scope="session")
def client(app: FastAPI) -> Iterator[TestClient]:
    """Start the gateway; what it does not foresee is an answer of status 500, as for its callers."""
    with TestClient(app, URL, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="session")
def call(client: TestClient) -> Call:
    """Return a function that posts a body and returns the status and the answer; no answer may be of another shape."""

    def post(path: str, body: bytes) -> tuple[int, Any]:
        answer = client.post(path, content=body, headers={"content-type": "application/json"})
        data = json.loads(answer.content)
        if answer.status_code != 200:
            assert set(data) - {"errors"} == ERROR_KEYS, (body[:500], data)
            assert data["message"]
        return answer.status_code, data

    return post


@pytest.fixture(scope="module")
def state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep the user's running server out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("chaos") / "state"
        patch.setenv("LYCHEE_STATE_DIR", str(folder))
        yield folder


@pytest.fixture(scope="module")
def supervised(repository: Path, state_folder: Path) -> Iterator[RunningServer]:
    """Run `lychee load` in the background; whatever the tests did to it, nothing is left at the end."""
    loaded = run("load", "--repository", str(repository), *FREE_PORTS, "--no-web", "--max-restarts", "100")
    try:
        assert loaded.returncode == 0, loaded.stderr
        yield RunningServer()
    finally:
        run("stop")
    assert find_leftovers() == []
