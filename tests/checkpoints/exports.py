"""Checkpoints and their repositories, made once per test run: an export takes ten seconds and more."""

from __future__ import annotations

from pathlib import Path

import pytest
from lychee_export.exporter import export_checkpoint
from lychee_export.limits import Limits

from checkpoints import BUILDERS

LIMITS = Limits(max_tokens=512, max_images=2, max_img_size=224, text_batch=8, image_batch=8)
"""Of every exported repository."""

_folders: dict[str, Path] = {}
_repositories: dict[str, Path] = {}


def build_once(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the checkpoint of this name."""
    if name not in _folders:
        _folders[name] = BUILDERS[name](tmp_path_factory.mktemp("checkpoint") / name)
    return _folders[name]


def export_once(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a Triton repository of the checkpoint of this name."""
    if name not in _repositories:
        repository = tmp_path_factory.mktemp("repository") / name
        export_checkpoint(str(build_once(name, tmp_path_factory)), repository, limits=LIMITS)
        _repositories[name] = repository
    return _repositories[name]
