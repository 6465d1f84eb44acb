"""Files and folders, on this machine or in a bucket: listing, reading, and writing in one step."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import fsspec
from fsspec.implementations.local import LocalFileSystem
from lychee_client.files import write_atomically

from lychee_bulk.errors import InputError, MissingPackageError, OutputError

PACKAGES: Final = {"s3": ("s3fs", "s3"), "s3a": ("s3fs", "s3"), "gs": ("gcsfs", "gcs"), "gcs": ("gcsfs", "gcs")}
"""The package that an address needs, and the extra that brings it, by protocol."""
ENDINGS: Final = {".parquet": "parquet", ".pq": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}
COMPRESSED: Final = (".gz", ".bz2", ".xz", ".zst")


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file of the input.

    Attributes:
        path: Its address.
        name: Its name, from the folder on that was given.
        kind: "parquet", "jsonl" or "csv".
        size_bytes: Its size in bytes.
        mark: What changes when its content does: the ETag of an object, the time of a local file's last change.
    """

    path: str
    name: str
    kind: str
    size_bytes: int
    mark: str


def open_filesystem(address: str) -> tuple[Any, str]:
    """Return the file system of an address, and the path on it.

    Raises:
        MissingPackageError: A package for such addresses is not installed.
        InputError: Nothing knows such addresses.
    """
    protocol = address.partition("://")[0] if "://" in address else "file"
    package, extra = PACKAGES.get(protocol, ("fsspec", ""))
    if importlib.util.find_spec(package) is None:
        raise MissingPackageError(
            f'{address} needs the package {package}, which is not installed; pip install "lychee-rerank-bulk[{extra}]"'
        )
    try:
        filesystem, path = fsspec.core.url_to_fs(address)
    except (ValueError, ImportError) as error:
        raise InputError(f"{address} cannot be opened: {error}; expected a path, s3:// or gs://") from error
    return filesystem, path


def find_kind(path: str) -> str | None:
    """Return the format of a file by its name, or None."""
    plain = path.lower()
    for ending in COMPRESSED:
        plain = plain.removesuffix(ending)
    return next((kind for ending, kind in ENDINGS.items() if plain.endswith(ending)), None)


def find_files(address: str, kind: str | None = None) -> tuple[InputFile, ...]:
    """Return the files of an input, sorted by name.

    Args:
        address: A file, a folder, or a pattern with `*`; local, or with a protocol of fsspec.
        kind: Their format, instead of what their names end with.

    Raises:
        InputError: There is none, or a file of an unknown format.
    """
    filesystem, path = open_filesystem(address)
    if "*" in path:
        found = [one for one in filesystem.glob(path) if not filesystem.isdir(one)]
        root = path.partition("*")[0].rpartition("/")[0]
    elif filesystem.isdir(path):
        found, root = [one for one in filesystem.find(path) if kind or find_kind(one)], path
    else:
        found, root = [path], path.rpartition("/")[0]
    root = f"{root.rstrip('/')}/"
    files = []
    for one in sorted(found):
        name = one.removeprefix(root)
        if any(part.startswith((".", "_")) for part in name.split("/")) and len(found) > 1:
            continue  # _SUCCESS, .crc and what else is no data
        files.append(_describe(filesystem, one, name, kind or find_kind(one)))
    if not files:
        raise InputError(f"{address} holds no file that ends with {', '.join(ENDINGS)}; give another, or --format")
    if len({file.kind for file in files}) > 1:
        kinds = ", ".join(sorted({file.kind for file in files}))
        raise InputError(f"{address} holds files of several formats, {kinds}; give those of one, with a pattern")
    return tuple(files)


def _describe(filesystem: Any, path: str, name: str, kind: str | None) -> InputFile:
    try:
        info = filesystem.info(path)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; give a file, a folder or a pattern") from error
    if kind is None:
        raise InputError(f"{path} is of an unknown format; expected a name that ends with {', '.join(ENDINGS)}")
    mark = next((str(info[key]) for key in ("ETag", "etag", "md5Hash", "mtime", "LastModified") if info.get(key)), "")
    return InputFile(filesystem.unstrip_protocol(path), name, kind, int(info.get("size") or 0), mark)


@dataclass(frozen=True)
class Folder:
    """A folder of output.

    Attributes:
        address: Where it is.
    """

    address: str

    def is_inside(self, address: str) -> bool:
        """Whether it is, or will be, in the folder of an address."""
        filesystem, path = self._place
        other, root = open_filesystem(address)
        return type(other) is type(filesystem) and f"{path}/".startswith(f"{root.rstrip('/')}/")

    @cached_property
    def _place(self) -> tuple[Any, str]:
        filesystem, path = open_filesystem(self.address)
        return filesystem, path.rstrip("/")

    @property
    def is_local(self) -> bool:
        """Whether it is on a disk of this machine, or on one that looks so."""
        return isinstance(self._place[0], LocalFileSystem)

    def create(self) -> None:
        """Make the folder, where folders have to be made.

        Raises:
            OutputError: It cannot be made.
        """
        filesystem, path = self._place
        try:
            filesystem.makedirs(path, exist_ok=True)
        except (OSError, ValueError) as error:
            raise OutputError(f"{self.address} cannot be made: {error}; give another folder") from error

    def names(self) -> set[str]:
        """Return the names of its files, as they are now."""
        filesystem, path = self._place
        filesystem.invalidate_cache()
        if not filesystem.exists(path):
            return set()
        if not filesystem.isdir(path):
            raise OutputError(f"{self.address} is a file; expected the name of a folder")
        return {one.rpartition("/")[2] for one in filesystem.ls(path, detail=False)}

    def read(self, name: str) -> bytes | None:
        """Return the content of a file, or None if there is none."""
        filesystem, path = self._place
        try:
            content: bytes = filesystem.cat_file(f"{path}/{name}")
        except FileNotFoundError:
            return None
        return content

    def open(self, name: str) -> Any:
        """Open a file for reading."""
        filesystem, path = self._place
        return filesystem.open(f"{path}/{name}", "rb")

    def exists(self, name: str) -> bool:
        """Whether a file is there now."""
        filesystem, path = self._place
        filesystem.invalidate_cache()
        return bool(filesystem.exists(f"{path}/{name}"))

    def write(self, name: str, content: bytes) -> None:
        """Write a file: all of it, or nothing.

        A local file gets its name when it is whole and on the disk; buckets do the same with what one request puts.
        """
        filesystem, path = self._place
        if self.is_local:
            write_atomically(Path(path) / name, content)
        else:
            filesystem.pipe_file(f"{path}/{name}", content)

    def delete(self, names: Iterable[str]) -> None:
        """Delete files, where they are there."""
        filesystem, path = self._place
        for name in names:
            if filesystem.exists(f"{path}/{name}"):
                filesystem.rm_file(f"{path}/{name}")
