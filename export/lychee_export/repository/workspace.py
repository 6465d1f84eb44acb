"""The folder of an unfinished export, inside the repository so that finished files only have to be moved.

It lies in the folder of ``client_assets``: there Triton reads the numbered folders alone, while it refuses to start
with a folder beside the models that is no model.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lychee_export.checkpoint.weight_files import hash_files
from lychee_export.errors import ExportError, ValidationError, WriteError
from lychee_export.onnx.model_file import model_files
from lychee_export.repository.assets import CLIENT_ASSETS

__all__ = ["Workspace", "folder_bytes", "unfinished_exports"]

_PREFIX = ".export-"
_UNFINISHED_SUFFIX = ".unfinished"
_HASHES = "sha256.json"


class Workspace:
    """Models that are made but not yet part of the repository; they survive an interruption and a failed validation.

    Args:
        repository: The folder of the model repository; it is made if it is absent.
        key: The key that names what the models are made from. Work under another key is removed.
        maker: The key that names what makes them: the code and its versions. Another's work is removed, too.
        resume: Whether another maker's work is taken over instead, and none at all is an error.

    Raises:
        OSError: The folder cannot be made.
        WriteError: There is nothing to resume, or another process exports into the repository.
    """

    def __init__(self, repository: Path, key: str, maker: str = "", *, resume: bool = False) -> None:
        self._repository = repository
        self._made = [path for path in (repository / CLIENT_ASSETS.name, repository) if not path.exists()]
        self.folder = repository / CLIENT_ASSETS.name / f"{_PREFIX}{key}-{maker}"
        found = unfinished_exports(repository)
        for path in found:
            with _claimed(path):
                pass
        if resume and self.folder not in found:
            of_others = [path for path in found if path.name.startswith(f"{_PREFIX}{key}-")]
            if not of_others:
                raise WriteError(
                    f"nothing to resume: {repository} holds no unfinished export of this checkpoint with these options "
                    f"({len(found)} of others); leave --resume out"
                )
            of_others[0].rename(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        for other in unfinished_exports(repository):
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

    @contextmanager
    def kept_if_useful(self) -> Iterator[None]:
        """Remove the folder afterwards, unless the export is interrupted or its models are not valid.

        Raises:
            WriteError: The body raised an OSError, or another process exports the same into this repository.
        """
        with _claimed(self.folder), self._kept_if_useful():
            yield

    @contextmanager
    def _kept_if_useful(self) -> Iterator[None]:
        try:
            yield
        except ValidationError as error:
            kept = self._keep_finished()
            if not kept:
                raise
            raise ValidationError(
                f"{error}. {self._repository} is as it was; the exported models are kept in {self.folder} "
                f"({kept / 1e6:,.1f} MB). The same command validates them again without exporting them, after an "
                "upgrade with --resume; remove the folder to begin anew"
            ) from error
        except ExportError:
            self.remove()
            raise
        except OSError as error:
            self.remove()
            raise WriteError(
                f"cannot write the model repository {self._repository}: {error}; it is as it was"
            ) from error
        self.remove()

    def _keep_finished(self) -> int:
        """Remove all but the finished models and return the bytes that they take; everything, if there are none."""
        for path in list(self.folder.iterdir()):
            if not (path / _HASHES).is_file():
                shutil.rmtree(path)
        size = folder_bytes(self.folder)
        if not size:
            self.remove()
        return size

    def remove(self) -> None:
        """Remove everything; the repository too, if it was made for this and nothing came of it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for path in self._made:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def unfinished_exports(repository: Path) -> list[Path]:
    """List the folders of unfinished exports."""
    return sorted(repository.glob(f"{CLIENT_ASSETS.name}/{_PREFIX}*"))


def folder_bytes(folder: Path) -> int:
    """Return how many bytes the files of a folder take."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Be the one process that works in a folder, where the file system can tell.

    Raises:
        WriteError: Another one does.
    """
    import fcntl  # Windows has none, and no repositories to write

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise WriteError(
                    f"another `lychee export` is writing {folder.parent.parent}; wait until it is done, or name "
                    "another folder with --repository"
                ) from error
        yield
    finally:
        os.close(descriptor)


def _hash_models(folder: Path) -> dict[str, str]:
    return {path.name: hash_files((path,)) for path in model_files(folder)}
