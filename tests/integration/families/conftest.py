"""Checkpoints of every family, their exports, and a real Triton for each."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from checkpoints.fixtures import Make, checkpoint_folder, exported, one_thread
from lychee_client import LycheeClient
from lychee_server import TritonServer

__all__ = ["checkpoint_folder", "exported", "one_thread", "serve", "triton"]


@pytest.fixture
def serve(exported: Make, tmp_path: Path) -> Iterator[Callable[[str], LycheeClient]]:
    """Return a function from a builder's name to a client of a Triton that serves its export."""
    with contextlib.ExitStack() as stack:

        def start(name: str) -> LycheeClient:
            repository = exported(name)
            ports = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
            # float32, whatever the machine has; models without this variant are so anyway
            server = TritonServer(repository, config_name="cpu", **ports, log_path=tmp_path / "triton.log")
            stack.enter_context(server)
            return stack.enter_context(LycheeClient(server.grpc_url))

        yield start


@pytest.fixture(scope="module")
def triton(exported: Make, name: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """Serve the export of the checkpoint that a module's fixture `name` names, in float32, whatever the machine has."""
    ports = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
    log_path = tmp_path_factory.mktemp("triton") / "triton.log"
    with TritonServer(exported(name), config_name="cpu", **ports, log_path=log_path) as server:
        yield server
