"""Fixtures that several folders of tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from lychee_export.families import Checkpoint, load_checkpoint

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def repository(root: Path) -> Path:
    """Return the exported model repository."""
    folder = root / "model_repository"
    if not any(folder.glob("client_assets/*/model.onnx")):
        pytest.fail("model_repository holds no exported models; run `make export`")
    return folder


@pytest.fixture(scope="session")
def checkpoint() -> Checkpoint:
    """Load the bundled checkpoint into torch modules."""
    return load_checkpoint("lychee-mini")


@pytest.fixture(scope="session")
def photos(root: Path) -> Path:
    """Return the folder of the example photos."""
    return root / "examples" / "catalogue" / "photos"
