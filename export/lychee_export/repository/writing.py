"""Write models into a Triton repository, all of them or none."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from lychee_client.exports import find_export, replace_export, restore_exports
from lychee_client.repository import newest_version

from lychee_export.checkpoint.weight_files import hash_files
from lychee_export.errors import WriteError
from lychee_export.repository.assets import CLIENT_ASSETS

__all__ = ["ModelFolder", "linked_repository", "write_models"]


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
    own_variants: Iterable[str] = (),
    root_files: Mapping[str, str | None] | None = None,
    keep: int = 1,
) -> Mapping[str, Sequence[str]]:
    """Put an export into the repository in place of the one that is there, which is kept among the earlier ones.

    All models get the one version of the export, and no other: clients name it, so that nothing that was asked of one
    export is answered by another. Other models in the repository stay, and so do other files in ``configs/`` where the
    model's own configuration is the same as before: a variant is a whole configuration, and may fit no other one.

    Args:
        repository: The folder of the model repository; it is made if it is absent.
        models: The models.
        version: The number of their version folders.
        own_variants: The names of files in ``configs/`` that go if a model does not have them any more.
        root_files: The texts of files beside the models, by name, scripts executable; None for one that goes.
        keep: How many exports the repository holds from now on, this one counted.

    Returns:
        The variants that stay behind with the earlier export: their names, with those of the models.

    Raises:
        WriteError: Something could not be written; the repository is as it was.
    """
    left: dict[str, list[str]] = {}
    assets = repository / CLIENT_ASSETS.name
    try:
        assets.mkdir(parents=True, exist_ok=True)
        restore_exports(repository)
        for leftover in (*repository.glob(f"{_STAGING_PREFIX}*"), *assets.glob(f"{_STAGING_PREFIX}*")):
            shutil.rmtree(leftover)
        with _staging(repository) as staging:
            new, old = staging / "new", staging / "old"
            new.mkdir()
            old.mkdir()
            kept = find_export(repository, version)
            folders = [repository, *([] if kept in (None, repository) else [kept])]
            for model in models:
                places = [folder / model.name for folder in folders]
                for name in _stage(new / model.name, model, version, places, frozenset(own_variants)):
                    left.setdefault(name, []).append(model.name)
            for name, text in (root_files or {}).items():
                if text is not None:
                    (new / name).write_text(text, encoding="utf-8")
                    if name.endswith(_SCRIPT_SUFFIX):
                        (new / name).chmod(_EXECUTABLE)
            replace_export(repository, new, old, [*(model.name for model in models), *(root_files or {})], keep)
    except OSError as error:
        raise WriteError(f"cannot write the model repository {repository}: {error}; it is as it was") from error
    finally:
        with suppress(OSError):  # not empty, or not there
            assets.rmdir()
    return left


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


@contextmanager
def _staging(repository: Path) -> Iterator[Path]:
    """Make a folder where Triton reads none, and remove it unless it holds what could not be put back."""
    folder = Path(tempfile.mkdtemp(prefix=_STAGING_PREFIX, dir=repository / CLIENT_ASSETS.name))
    try:
        yield folder
    finally:
        restore_exports(repository)
        shutil.rmtree(folder, ignore_errors=True)


def _stage(
    folder: Path, model: ModelFolder, version: int, places: Sequence[Path], own_variants: frozenset[str]
) -> Sequence[str]:
    """Write a model's folder; return the names of the variants that stay behind.

    Args:
        folder: Where to; it does not exist.
        model: The model.
        version: The number of its version folder.
        places: Its folder in the current export, and in a kept one of the same version: what was built there, and
            variants that fit, go on.
        own_variants: See write_models.
    """
    files = folder / str(version)
    files.mkdir(parents=True)
    latest = [newest_version(place) for place in places]
    built = [old for old in latest if model.files and all(_same_content(path, old / path.name) for path in model.files)]
    for path in model.files:
        os.replace(path, files / path.name)
    for old in built:
        _keep_built_files(old, files)
    (folder / "config.pbtxt").write_text(model.config, encoding="utf-8")
    fitting = [place for place in places if _has_config(place, model.config)]
    others = {path.name: path for place in reversed(fitting) for path in _other_variants(place, own_variants)}
    if model.variants or others:
        (folder / "configs").mkdir()
    for path in others.values():
        shutil.copy2(path, folder / "configs" / path.name)
    for name, text in model.variants.items():
        (folder / "configs" / f"{name}.pbtxt").write_text(text, encoding="utf-8")
    return [path.stem for path in _other_variants(places[0], own_variants) if path.name not in others]


def _other_variants(place: Path, own_variants: frozenset[str]) -> list[Path]:
    return [path for path in sorted(place.glob("configs/*")) if path.stem not in own_variants]


def _has_config(folder: Path, text: str) -> bool:
    path = folder / "config.pbtxt"
    return path.is_file() and path.read_text(encoding="utf-8") == text


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
