"""The layout of a Triton model repository: what the export writes, and the server and the load tests read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

__all__ = [
    "ASSETS_MODEL",
    "EXTERNAL_DATA_SUFFIX",
    "MANIFEST_FILENAME",
    "MODEL_FILENAME",
    "newest_version",
    "read_manifest",
    "version_folders",
]

ASSETS_MODEL: Final = "client_assets"
"""The model whose answers are the manifest and the tokenizer."""
MANIFEST_FILENAME: Final = "manifest.json"
MODEL_FILENAME: Final = "model.onnx"
EXTERNAL_DATA_SUFFIX: Final = ".data"
"""Ends the name of the file beside a model's that holds its weights, where they are too large for one file."""

_FIRST_VERSION: Final = 1


def version_folders(folder: Path) -> list[int]:
    """Return a model's versions, ascending; empty if there is no such folder.

    Triton ignores folders whose number begins with 0.
    """
    names = [child.name for child in folder.iterdir() if child.is_dir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isascii() and name.isdigit() and name[0] != "0")


def newest_version(folder: Path) -> Path:
    """Return the folder of the version of a model that Triton serves; without versions, where the first one belongs."""
    return folder / str(max(version_folders(folder), default=_FIRST_VERSION))


def read_manifest(repository: Path) -> dict[str, Any]:
    """Return what the newest export says about itself, as JSON types; empty if it left no manifest that can be read."""
    try:
        path = newest_version(repository / ASSETS_MODEL) / MANIFEST_FILENAME
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
