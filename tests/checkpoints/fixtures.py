"""Fixtures of the folders that test the families; their ``conftest.py`` import them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from checkpoints.exports import build_once, export_once

__all__ = ["Make", "checkpoint_folder", "exported", "one_thread"]

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
