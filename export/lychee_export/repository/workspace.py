"""The folder of an unfinished export, inside the repository so that finished files only have to be moved."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from lychee_export.checkpoint.weight_files import hash_files
from lychee_export.onnx.model_file import model_files

__all__ = ["WORKSPACE_PREFIX", "Workspace"]

WORKSPACE_PREFIX = ".export-"
_UNFINISHED_SUFFIX = ".unfinished"
_HASHES = "sha256.json"


class Workspace:
    """Models that are made but not yet part of the repository; they survive an interruption.

    Args:
        repository: The folder of the model repository; it is made if it is absent.
        key: The key that names everything the models depend on. Work under another key is removed.

    Raises:
        OSError: The folder cannot be made.
    """

    def __init__(self, repository: Path, key: str) -> None:
        self._repository = repository
        self._made_repository = not repository.exists()
        self.folder = repository / f"{WORKSPACE_PREFIX}{key}"
        self.folder.mkdir(parents=True, exist_ok=True)
        for other in repository.glob(f"{WORKSPACE_PREFIX}*"):
            if other != self.folder:
                shutil.rmtree(other)

    def find(self, name: str) -> Path | None:
        """Return the folder of a model that an earlier run finished and that still has the content it had."""
        folder = self.folder / name
        try:
            hashes = json.loads((folder / _HASHES).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return folder if hashes and _hash_models(folder) == hashes else None

    def make(self, name: str, write: Callable[[Path], None]) -> Path:
        """Make a model's folder: ``write`` fills it, and only then it counts as finished."""
        folder = self.folder / name
        unfinished = self.folder / f"{name}{_UNFINISHED_SUFFIX}"
        for leftover in (folder, unfinished):
            shutil.rmtree(leftover, ignore_errors=True)
        unfinished.mkdir()
        write(unfinished)
        (unfinished / _HASHES).write_text(json.dumps(_hash_models(unfinished)), encoding="utf-8")
        unfinished.rename(folder)
        return folder

    def discard(self, name: str) -> None:
        """Remove a model's folder."""
        shutil.rmtree(self.folder / name, ignore_errors=True)

    def hashes(self, name: str) -> dict[str, str]:
        """Return the SHA-256 of a finished model's files by file name."""
        content: dict[str, str] = json.loads((self.folder / name / _HASHES).read_text(encoding="utf-8"))
        return content

    def remove(self) -> None:
        """Remove everything; the repository too, if it was made for this and nothing came of it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._made_repository and self._repository.is_dir() and not any(self._repository.iterdir()):
            self._repository.rmdir()


def _hash_models(folder: Path) -> dict[str, str]:
    return {path.name: hash_files((path,)) for path in model_files(folder)}
