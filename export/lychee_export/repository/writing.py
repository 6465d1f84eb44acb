"""Write models into a Triton repository, all of them or none."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lychee_client.repository import newest_version, read_manifest

from lychee_export.checkpoint.weight_files import hash_files
from lychee_export.errors import WriteError

__all__ = ["ModelFolder", "exported_models", "linked_repository", "write_models"]


_STAGING_PREFIX = ".staging-"
_SCRIPT_SUFFIX = ".sh"
_EXECUTABLE = 0o755


@dataclass(frozen=True)
class ModelFolder:
    """One model as it lies in the repository.

    Args:
        name: The folder's name.
        config: The text of ``config.pbtxt``.
        variants: The texts of the files in ``configs/``, for other hardware, by name.
        files: The files of the version folder, which are moved there; none for an ensemble.
    """

    name: str
    config: str
    variants: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[Path] = ()


def write_models(
    repository: Path,
    models: Sequence[ModelFolder],
    version: int,
    *,
    stale: Iterable[str] = (),
    own_variants: Iterable[str] = (),
    root_files: Mapping[str, str | None] | None = None,
) -> None:
    """Put models into the repository in place of those with the same names.

    All of them get the one version of the export, and no other: clients name it, so that nothing that was asked of one
    export is answered by another. Other models in the repository and other files in ``configs/`` stay.

    Args:
        repository: The folder of the model repository; it is made if it is absent.
        models: The models.
        version: The number of their version folders.
        stale: The names of models that go, if they are there.
        own_variants: The names of files in ``configs/`` that go if a model does not have them any more.
        root_files: The texts of files beside the models, by name, scripts executable; None for one that goes.

    Raises:
        WriteError: Something could not be written; the repository is as it was.
    """
    try:
        repository.mkdir(parents=True, exist_ok=True)
        for leftover in repository.glob(f"{_STAGING_PREFIX}*"):
            shutil.rmtree(leftover)
        with tempfile.TemporaryDirectory(prefix=_STAGING_PREFIX, dir=repository) as staging:
            new, old = Path(staging, "new"), Path(staging, "old")
            new.mkdir()
            old.mkdir()
            for model in models:
                _stage(new / model.name, model, version, repository / model.name, frozenset(own_variants))
            for name, text in (root_files or {}).items():
                if text is not None:
                    (new / name).write_text(text, encoding="utf-8")
                    if name.endswith(_SCRIPT_SUFFIX):
                        (new / name).chmod(_EXECUTABLE)
            names = dict.fromkeys([*(model.name for model in models), *stale, *(root_files or {})])
            _swap(repository, new, old, list(names))
    except OSError as error:
        raise WriteError(f"cannot write the model repository {repository}: {error}; it is as it was") from error


@contextmanager
def linked_repository(models: Sequence[ModelFolder], number: int, parent: Path) -> Iterator[Path]:
    """Lay models out as a repository of links, to try them before they are moved into the real one.

    Args:
        models: The models; their files stay where they are, those of one model in one folder.
        number: The number of their version folders.
        parent: The folder in which the repository exists for a while.
    """
    with tempfile.TemporaryDirectory(prefix="linked-", dir=parent) as folder:
        for model in models:
            version = Path(folder, model.name, str(number))
            version.parent.mkdir()
            (version.parent / "config.pbtxt").write_text(model.config, encoding="utf-8")
            if model.files:  # a link to the folder: ONNX Runtime takes no weights through a link to their file
                version.symlink_to(model.files[0].parent.absolute())
            else:
                version.mkdir()
        yield Path(folder)


def exported_models(repository: Path) -> frozenset[str]:
    """Name the models that the repository's manifest lists, also as files: the last export's, and nobody else's."""
    manifest = read_manifest(repository)
    files = () if manifest is None else (name.partition("/")[0] for name in manifest.artifacts if "/" in name)
    names = () if manifest is None else {*manifest.max_batch_size, *files}
    return frozenset(name for name in names if name not in ("", ".", "..") and Path(name).name == name)


def _stage(folder: Path, model: ModelFolder, version: int, previous: Path, own_variants: frozenset[str]) -> None:
    files, latest = folder / str(version), newest_version(previous)
    files.mkdir(parents=True)
    unchanged = all(_same_content(path, latest / path.name) for path in model.files)
    for path in model.files:
        os.replace(path, files / path.name)
    if model.files and unchanged:
        _keep_built_files(latest, files)
    (folder / "config.pbtxt").write_text(model.config, encoding="utf-8")
    if (previous / "configs").is_dir():
        ignore = shutil.ignore_patterns(*(f"{name}.pbtxt" for name in own_variants))
        shutil.copytree(previous / "configs", folder / "configs", ignore=ignore)
    for name, text in model.variants.items():
        (folder / "configs").mkdir(exist_ok=True)
        (folder / "configs" / f"{name}.pbtxt").write_text(text, encoding="utf-8")


def _same_content(first: Path, second: Path) -> bool:
    if not second.is_file() or first.stat().st_size != second.stat().st_size:
        return False
    return hash_files((first,)) == hash_files((second,))


def _keep_built_files(previous: Path, folder: Path) -> None:
    """Keep what was built from files that have not changed, such as TensorRT's plan."""
    if previous.is_dir():
        for path in previous.iterdir():
            if path.is_file() and not (folder / path.name).exists():
                _link(path, folder / path.name)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # not every file system has links
        shutil.copy2(source, target)


def _swap(repository: Path, new: Path, old: Path, names: Sequence[str]) -> None:
    """Move the new folders in and the old ones out; undo everything if one move fails."""
    moved: list[tuple[Path, Path]] = []
    try:
        for name in names:
            if (repository / name).exists():
                _move(repository / name, old / name, moved)
            if (new / name).exists():
                _move(new / name, repository / name, moved)
    except OSError:
        for source, target in reversed(moved):
            os.rename(target, source)
        raise


def _move(source: Path, target: Path, moved: list[tuple[Path, Path]]) -> None:
    os.rename(source, target)
    moved.append((source, target))
