"""The exports that a repository holds: the current one, which a server serves, and earlier ones that were kept.

The current export lies in the repository's own folders of models. An earlier one lies, laid out the same way, in
``client_assets/previous/<version>``: Triton takes every folder of a repository for a model, and reads the numbered ones
alone in the folder of a model. Exports are moved, never copied, and keep their files' times. What a process that died
has left half-way is undone by the next one that reads or changes the exports.
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
from lychee_client.moves import move_all, undo_moves
from lychee_client.repository import (
    ASSETS_MODEL,
    BUILD_SCRIPT,
    MANIFEST_FILENAME,
    VALIDATION_FILENAME,
    newest_version,
    read_manifest,
)

__all__ = ["Export", "find_export", "list_exports", "model_names", "replace_export", "restore_exports", "use_export"]

PREVIOUS: Final = "previous"
EXPORTED_AT: Final = "exported_at"
"""Of the file of VALIDATION_FILENAME: when, in RFC 3339."""
_LEAVING: Final = ".leaving"
_MOVES: Final = ".moves.json"
"""Of the folder of ASSETS_MODEL: what is being moved, as long as it is."""
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
    restore_exports(repository)
    _find_wanted(repository, version)  # before there is a lock: the folder itself may be absent
    try:
        with _alone(repository):
            undo_moves(_record(repository))
            wanted = _find_wanted(repository, version)
            if wanted.is_current:
                return
            leaving = repository / ASSETS_MODEL / PREVIOUS / _LEAVING
            shutil.rmtree(leaving, ignore_errors=True)
            leaving.mkdir()
            _replace(repository, wanted.path, leaving, {path.name for path in wanted.path.iterdir()}, None)
    except OSError as error:
        restore_exports(repository)
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
        undo_moves(_record(repository))
        _replace(repository, incoming, leaving, names, keep)


def restore_exports(repository: Path) -> None:
    """Undo what a process has left half-way that died while it replaced the current export.

    Raises:
        ConfigurationError: Something cannot be moved back.
    """
    record = _record(repository)
    if not record.exists():
        return
    try:
        with _alone(repository):
            undo_moves(record)
    except OSError as error:
        raise ConfigurationError(
            f"{repository} was left half-way between two exports, and cannot be put back: {error}. Make it writable, "
            "and call the same command again"
        ) from error


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


def _find_wanted(repository: Path, version: int) -> Export:
    """Return the export that is to become the current one.

    Raises:
        ConfigurationError: There is no such export, or the current one could not be kept.
    """
    exports = list_exports(repository)
    wanted = next((export for export in exports if export.version == version), None)
    if wanted is None:
        known = ", ".join(str(export.version) for export in exports) or "none"
        raise ConfigurationError(f"{repository} has no export {version}; it has {known}")
    if not wanted.is_current and not any(export.is_current and export.version for export in exports):
        raise ConfigurationError(
            f"what {repository} serves now has no version and could not be kept; run `lychee export` once more"
        )
    return wanted


def _replace(repository: Path, incoming: Path, leaving: Path, names: Iterable[str], keep: int | None) -> None:
    old, new = read_manifest(repository), read_manifest(incoming)
    old_version = None if old is None else old.version
    new_version = None if new is None else new.version
    every = dict.fromkeys([*names, *([] if old is None else sorted(model_names(old))), *_ROOT_FILES])
    previous = repository / ASSETS_MODEL / PREVIOUS
    for folder in (repository, leaving):
        (folder / ASSETS_MODEL).mkdir(exist_ok=True)
    moves = [(folder, name) for name in every for folder in (repository, incoming)]
    planned = [
        (child, (leaving if folder == repository else repository) / child.relative_to(folder))
        for folder, name in moves
        for child in _own_parts(folder / name)
    ]
    if old_version and old_version != new_version and keep != 1:
        previous.mkdir(exist_ok=True)
        kept = previous / str(old_version)
        if read_manifest(kept) is None:  # what is left of an export that moved away
            shutil.rmtree(kept, ignore_errors=True)
        planned.append((leaving, kept))
    move_all(_record(repository), planned)
    shutil.rmtree(previous / str(new_version), ignore_errors=True)  # it is the current one now
    _remove_oldest(repository, keep, old_version)


def _own_parts(path: Path) -> list[Path]:
    """Return what is moved of a model's folder or a file. Others' work lies in the folder of ASSETS_MODEL, too."""
    if path.name != ASSETS_MODEL or not path.is_dir():
        return [path] if path.exists() else []
    return [child for child in sorted(path.iterdir()) if child.name != PREVIOUS and not child.name.startswith(".")]


def _record(repository: Path) -> Path:
    return repository / ASSETS_MODEL / _MOVES


def _remove_oldest(repository: Path, keep: int | None, replaced: int | None) -> None:
    """Remove what is beyond the number; the one that was just replaced, which a server may serve, is the last to go."""
    if keep is None:
        return
    kept = [export for export in list_exports(repository) if not export.is_current]
    kept.sort(key=lambda export: export.version != replaced)
    for export in kept[max(0, keep - 1) :]:
        shutil.rmtree(export.path, ignore_errors=True)
    with suppress(OSError):  # not empty, or not there
        (repository / ASSETS_MODEL / PREVIOUS).rmdir()


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
