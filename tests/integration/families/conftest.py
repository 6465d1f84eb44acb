"""Checkpoints of every family, their exports, and a real Triton for each."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from checkpoints.exports import build_once, export_once
from lychee_client import LycheeClient
from lychee_server import TritonServer

Make = Callable[[str], Path]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Keep torch from waiting for threads: the tensors are tiny."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def checkpoint_folder(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Return a function from a builder's name to the checkpoint's folder."""
    return partial(build_once, tmp_path_factory=tmp_path_factory)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Return a function from a builder's name to the exported Triton repository."""
    return partial(export_once, tmp_path_factory=tmp_path_factory)


@pytest.fixture
def serve(exported: Make, tmp_path: Path) -> Iterator[Callable[[str], LycheeClient]]:
    """Return a function from a builder's name to a client of a Triton that serves its export."""
    with contextlib.ExitStack() as stack:

        def start(name: str) -> LycheeClient:
            server = TritonServer(
                exported(name), http_port=0, grpc_port=0, metrics_port=0, log_path=tmp_path / "triton.log"
            )
            stack.enter_context(server)
            return stack.enter_context(LycheeClient(server.grpc_url))

        yield start
