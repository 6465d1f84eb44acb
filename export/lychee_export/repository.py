"""Write models into a Triton repository, all of them or none."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .errors import RepositoryError

__all__ = ["ModelFolder", "write_models"]

_STAGING_PREFIX = ".staging-"
_FIRST_VERSION = "1"


@dataclass(frozen=True)
class ModelFolder:
    """One model as it lies in the repository.

    Args:
        name: The folder's name.
        config: Text of ``config.pbtxt``.
        variants: Text by name of the files in ``configs/``, for other hardware.
        files: Content by name of the files in the version folder; empty for an ensemble.
    """

    name: str
    config: str
    variants: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


def write_models(repository: Path, models: Sequence[ModelFolder]) -> None:
    """Put models into the repository in place of those with the same names.

    A model whose files changed gets the next version number, so that nothing that was served under a version is
    served differently under it. Other models in the repository and other files in ``configs/`` stay.

    Raises:
        RepositoryError: Something could not be written; the repository is as it was.
    """
    try:
        repository.mkdir(parents=True, exist_ok=True)
        for leftover in repository.glob(f"{_STAGING_PREFIX}*"):
            shutil.rmtree(leftover)
        with tempfile.TemporaryDirectory(prefix=_STAGING_PREFIX, dir=repository) as staging:
            new, old = Path(staging, "new"), Path(staging, "old")
            old.mkdir()
            for model in models:
                _stage(new / model.name, model, repository / model.name)
            _swap(repository, new, old, [model.name for model in models])
    except OSError as error:
        raise RepositoryError(f"cannot write the model repository {repository}: {error}; it is as it was") from error


def _stage(folder: Path, model: ModelFolder, previous: Path) -> None:
    version_folder = folder / _next_version(previous, model.files)
    version_folder.mkdir(parents=True)
    for name, content in model.files.items():
        (version_folder / name).write_bytes(content)
    (folder / "config.pbtxt").write_text(model.config, encoding="utf-8")
    if (previous / "configs").is_dir():
        shutil.copytree(previous / "configs", folder / "configs")
    for name, text in model.variants.items():
        (folder / "configs").mkdir(exist_ok=True)
        (folder / "configs" / f"{name}.pbtxt").write_text(text, encoding="utf-8")


def _next_version(previous: Path, files: Mapping[str, bytes]) -> str:
    versions = [int(path.name) for path in previous.glob("[0-9]*") if path.name.isdecimal()]
    if not versions:
        return _FIRST_VERSION
    latest = previous / str(max(versions))
    changed = any(
        not (latest / name).is_file() or (latest / name).read_bytes() != content for name, content in files.items()
    )
    return str(max(versions) + 1) if changed and any(latest.iterdir()) else latest.name


def _swap(repository: Path, new: Path, old: Path, names: Sequence[str]) -> None:
    """Move the new folders in and the old ones out; undo everything if one move fails."""
    moved: list[tuple[Path, Path]] = []
    try:
        for name in names:
            if (repository / name).exists():
                _move(repository / name, old / name, moved)
            _move(new / name, repository / name, moved)
    except OSError:
        for source, target in reversed(moved):
            os.rename(target, source)
        raise


def _move(source: Path, target: Path, moved: list[tuple[Path, Path]]) -> None:
    os.rename(source, target)
    moved.append((source, target))
