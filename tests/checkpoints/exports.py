"""Checkpoints and their repositories, made once per test run: an export takes ten seconds and more.

Parallel test processes share them: the first that needs one makes it, the others wait.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from lychee_export.contract.limits import Limits
from lychee_export.exporter import export_checkpoint

from checkpoints import BUILDERS

LIMITS = Limits(max_tokens=512, max_images=3, max_img_size=224, text_batch=8, image_batch=8)
"""Of every exported repository."""


def build_once(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the checkpoint of this name."""
    return _make_once("checkpoint", name, BUILDERS[name], tmp_path_factory)


def export_once(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a Triton repository of the checkpoint of this name."""

    def export(repository: Path) -> None:
        export_checkpoint(str(build_once(name, tmp_path_factory)), repository, limits=LIMITS)

    return _make_once("repository", name, export, tmp_path_factory)


def _make_once(kind: str, name: str, make: Callable[[Path], object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that `make` fills, of this test process or of an earlier one of the same run."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # each process has a folder of its own in the run's
        shared = shared.parent
    folder = shared / f"{kind}-{name}"
    finished = folder / ".finished"
    with FileLock(shared / f"{kind}-{name}.lock"):
        if not finished.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder / name)
            finished.touch()
    return folder / name
