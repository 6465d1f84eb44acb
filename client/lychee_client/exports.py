"""The exports that a repository holds: the current one, which a server serves, and earlier ones that were kept.

The current export lies in the repository's own folders of models. An earlier one lies, laid out the same way, in
``client_assets/previous/<version>``: Triton takes every folder of a repository for a model, and reads the numbered ones
alone in the folder of a model. Exports are moved, never copied, and keep their files' times.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from lychee_client._errors import ConfigurationError
from lychee_client.manifest.manifest import Manifest
from lychee_client.repository import (
    ASSETS_MODEL,
    BUILD_SCRIPT,
    MANIFEST_FILENAME,
    VALIDATION_FILENAME,
    newest_version,
    read_manifest,
)

__all__ = ["Export", "find_export", "list_exports", "model_names", "replace_export", "use_export"]

PREVIOUS: Final = "previous"
EXPORTED_AT: Final = "exported_at"
"""Of the file of VALIDATION_FILENAME: when, in RFC 3339."""
_LEAVING: Final = ".leaving"
_ROOT_FILES: Final = (VALIDATION_FILENAME, BUILD_SCRIPT)


@dataclass(frozen=True, slots=True)
class Export:
    """One export of a repository.

    Attributes:
        version: The number of its models' version folders; 0 for one of before 0.3, which has none of its own.
        path: The folder of its models.
        manifest: What it says of itself.
        exported_at: When it was made; None where nothing tells.
        is_current: Whether a server that is loaded now serves it.
    """

    version: int
    path: Path
    manifest: Manifest
    exported_at: datetime | None
    is_current: bool


def list_exports(repository: Path) -> tuple[Export, ...]:
    """Return the exports that can be read, the newest first; none if there is no repository."""
    found = []
    for folder in (repository, *_previous_folders(repository)):
        manifest = read_manifest(folder)
        if manifest is not None:
            found.append(Export(manifest.version or 0, folder, manifest, _exported_at(folder), folder == repository))
    oldest = datetime.min.replace(tzinfo=timezone.utc)
    return tuple(sorted(found, key=lambda export: export.exported_at or oldest, reverse=True))


def find_export(repository: Path, version: int) -> Path | None:
    """Return the folder that holds an export's models now; None if it is not there."""
    return next((export.path for export in list_exports(repository) if export.version == version), None)


def use_export(repository: Path, version: int) -> None:
    """Make a kept export the current one, and keep the one that was. All of it happens, or nothing.

    Raises:
        ConfigurationError: There is no such export, the current one cannot be kept, or something cannot be moved.
    """
    exports = list_exports(repository)
    wanted = next((export for export in exports if export.version == version), None)
    if wanted is None:
        known = ", ".join(str(export.version) for export in exports) or "none"
        raise ConfigurationError(f"{repository} has no export {version}; it has {known}")
    if wanted.is_current:
        return
    current = next((export for export in exports if export.is_current), None)
    if current is None or not current.version:
        raise ConfigurationError(
            f"what {repository} serves now has no version and could not be kept; run `lychee export` once more"
        )
    leaving = repository / ASSETS_MODEL / PREVIOUS / _LEAVING
    names = {path.name for path in wanted.path.iterdir()}
    try:
        shutil.rmtree(leaving, ignore_errors=True)
        leaving.mkdir()
        replace_export(repository, wanted.path, leaving, names)
    except OSError as error:
        raise ConfigurationError(
            f"export {version} cannot be made the current one of {repository}: {error.strerror or error}; all is as it "
            "was"
        ) from error


def replace_export(
    repository: Path, incoming: Path, leaving: Path, names: Iterable[str], keep: int | None = None
) -> None:
    """Move an export into a repository, and the one that was current among those that are kept.

    Args:
        repository: The folder of the repository.
        incoming: The folder with the new export's models and files.
        leaving: An empty folder of the same file system. What was current and has no version stays there.
        names: The names of what comes, and of what else goes.
        keep: How many exports stay, the current one counted; None removes none.

    Raises:
        OSError: Something cannot be moved; the repository is as it was.
    """
    with _alone(repository):
        old, new = read_manifest(repository), read_manifest(incoming)
        old_version = None if old is None else old.version
        new_version = None if new is None else new.version
        every = dict.fromkeys([*names, *([] if old is None else sorted(model_names(old))), *_ROOT_FILES])
        previous = repository / ASSETS_MODEL / PREVIOUS
        moved: list[tuple[Path, Path]] = []
        try:
            for name in every:
                _move(repository / name, leaving / name, moved)
                _move(incoming / name, repository / name, moved)
            if old_version and old_version != new_version and keep != 1:
                previous.mkdir(exist_ok=True)
                _rename(leaving, previous / str(old_version), moved)
        except OSError:
            for source, target in reversed(moved):
                os.rename(target, source)
            raise
        shutil.rmtree(previous / str(new_version), ignore_errors=True)  # it is the current one now
        _remove_oldest(repository, keep)


def model_names(manifest: Manifest) -> frozenset[str]:
    """Name the models of an export."""
    files = (name.partition("/")[0] for name in manifest.artifacts if "/" in name)
    names = {*manifest.max_batch_size, *files}
    return frozenset(name for name in names if name not in ("", ".", "..") and Path(name).name == name)


def _previous_folders(repository: Path) -> list[Path]:
    folder = repository / ASSETS_MODEL / PREVIOUS
    return [child for child in folder.iterdir() if child.name.isdigit()] if folder.is_dir() else []


def _exported_at(folder: Path) -> datetime | None:
    with suppress(OSError, ValueError, TypeError, KeyError):
        text = json.loads((folder / VALIDATION_FILENAME).read_text(encoding="utf-8"))[EXPORTED_AT]
        return datetime.fromisoformat(text).astimezone(timezone.utc)
    with suppress(OSError):  # of before the time was written down
        written = (newest_version(folder / ASSETS_MODEL) / MANIFEST_FILENAME).stat().st_mtime
        return datetime.fromtimestamp(written, timezone.utc)
    return None


def _remove_oldest(repository: Path, keep: int | None) -> None:
    if keep is None:
        return
    kept = [export for export in list_exports(repository) if not export.is_current]
    for export in kept[max(0, keep - 1) :]:
        shutil.rmtree(export.path, ignore_errors=True)
    with suppress(OSError):  # not empty, or not there
        (repository / ASSETS_MODEL / PREVIOUS).rmdir()


def _move(source: Path, target: Path, moved: list[tuple[Path, Path]]) -> None:
    """Move a model's folder or a file. Of ASSETS_MODEL only what belongs to the export: others' work lies there too."""
    if source.name != ASSETS_MODEL or not source.is_dir():
        if source.exists():
            _rename(source, target, moved)
        return
    target.mkdir(exist_ok=True)
    for child in list(source.iterdir()):
        if child.name != PREVIOUS and not child.name.startswith("."):
            _rename(child, target / child.name, moved)


def _rename(source: Path, target: Path, moved: list[tuple[Path, Path]]) -> None:
    os.rename(source, target)
    moved.append((source, target))


@contextmanager
def _alone(repository: Path) -> Iterator[None]:
    """Wait until no other process replaces an export here, where the file system can tell."""
    import fcntl  # Windows has none, and no repositories to write

    descriptor = os.open(repository, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
