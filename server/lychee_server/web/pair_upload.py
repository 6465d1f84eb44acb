"""Labelled pairs as a user uploads them: a table, or a zip with a table and its images.

Nothing that an upload says is ever opened as a file of this machine: an image is a data URL, or a member of the same
zip. What is unpacked goes into a folder of our own, under names of our own.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import posixpath
import re
import stat
import unicodedata
import zipfile
from pathlib import Path, PurePosixPath
from typing import Final

from lychee_evaluate.calibration.pairs import PairSheet, parse_pairs
from lychee_evaluate.tables.message import RowError
from lychee_evaluate.tables.zip_directory import directory_bytes

from lychee_server.defaults import MIB
from lychee_server.web.problems import PageError

TABLE_SUFFIXES: Final = (".csv", ".tsv", ".xlsx", ".xlsm", ".jsonl", ".ndjson")
ZIP_SUFFIX: Final = ".zip"
MAX_TABLE_BYTES: Final = 16 * MIB
MAX_ROWS: Final = 20_000
MAX_PAIRS: Final = 5_000
MAX_MEMBERS: Final = 5_000
MAX_IMAGE_BYTES: Final = 32 * MIB
MAX_UNPACKED_BYTES: Final = 512 * MIB
_SHOWN_CHARACTERS: Final = 80
_DATA_URL: Final = re.compile(r"data:image/[\w.+-]+;base64,", re.ASCII | re.IGNORECASE)
_IGNORED: Final = re.compile(r"(^|/)(__MACOSX/|\.[^./])")  # what macOS adds, and hidden files
_MAX_DIRECTORY_BYTES: Final = 2 * MIB
_UTF8_FLAG: Final = 0x800
_ENCRYPTED_FLAG: Final = 0x1


def read_upload(name: str, data: bytes, folder: Path) -> PairSheet:
    """Read the labelled pairs of an upload; a row that cannot be used costs only itself.

    Args:
        name: What the user calls the file. Its suffix says what it is.
        data: The content of the file.
        folder: An empty folder for the images; must outlive the pairs.

    Raises:
        PageError: It is too large, or a zip that cannot be unpacked safely.
        TableError: It is no table, cannot be read, or lacks a column.
    """
    if PurePosixPath(name.lower()).suffix != ZIP_SUFFIX:
        return _parse_table(name, data, UploadedImages(folder, None, ""))
    archive = Archive(data)
    table = archive.find_table()
    try:
        content = archive.read(table, MAX_TABLE_BYTES)
    except UnpackError as error:
        raise PageError("zip", reason=str(error)) from error
    images = UploadedImages(folder, archive, posixpath.dirname(table))
    return _parse_table(PurePosixPath(table).name, content, images)


def _parse_table(name: str, data: bytes, images: UploadedImages) -> PairSheet:
    if len(data) > MAX_TABLE_BYTES:
        raise PageError("table_size", limit=MAX_TABLE_BYTES // MIB)
    if not data.startswith(b"PK") and data.count(b"\n") + data.count(b"\r") > 2 * MAX_ROWS:
        raise PageError("pairs", limit=MAX_PAIRS)
    return parse_pairs(PurePosixPath(name), data, find_file=images.find, labelled=True, limit=MAX_PAIRS)


class UploadedImages:
    """Turns what a cell says about an image into a file of ours.

    Args:
        folder: Where the files go.
        archive: The zip that the table came in, or None.
        base: The table's folder in the zip: names of images are relative to it.
    """

    def __init__(self, folder: Path, archive: Archive | None, base: str) -> None:
        self._folder = folder
        self._archive = archive
        self._base = base
        self._members: dict[str, Path] = {}

    def find(self, cell: str) -> Path:
        """Return the file that holds the image of a cell: a data URL, or the name of a member of the zip.

        Raises:
            RowError: It is neither, or too large.
            PageError: All images together are too large.
        """
        prefix = _DATA_URL.match(cell)
        if prefix is not None:
            try:
                return self._write(base64.b64decode(cell[prefix.end() :], validate=True))
            except binascii.Error as error:
                raise RowError("bad_data_url", reason=str(error)) from error
        shown = cell[:_SHOWN_CHARACTERS]
        if self._archive is None:
            raise RowError("image_not_sent", image=shown)
        member = self._archive.resolve(self._base, cell)
        if member is None:
            raise RowError("image_not_in_zip", image=shown)
        if member not in self._members:
            try:
                self._members[member] = self._write(self._archive.read(member, MAX_IMAGE_BYTES))
            except UnpackError as error:
                raise RowError("image_not_unpacked", image=shown, reason=str(error)) from error
        return self._members[member]

    def _write(self, data: bytes) -> Path:
        path = self._folder / hashlib.sha256(data).hexdigest()
        path.write_bytes(data)
        return path


class UnpackError(Exception):
    """A member of a zip cannot be had; the message says why."""


class Archive:
    """A zip in memory of which only plain files are read, and never more of them than allowed.

    Args:
        data: The content of the zip.

    Raises:
        PageError: It is none, or holds too much.
    """

    def __init__(self, data: bytes) -> None:
        _check_directory(data)
        self._read_bytes = 0
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except Exception as error:  # zipfile raises whatever damaged bytes make it stumble over
            raise PageError("zip", reason=str(error)[:_SHOWN_CHARACTERS]) from error
        entries = [entry for entry in self._zip.infolist() if not _IGNORED.search(entry.filename)]
        if len(entries) > MAX_MEMBERS:
            raise PageError("members", limit=MAX_MEMBERS)
        self._entries = {name: entry for entry in entries if _is_plain_file(entry) for name in _names(entry)}

    def find_table(self) -> str:
        """Return the name of the one table.

        Raises:
            PageError: There is none, or more than one.
        """
        entries = {id(entry): name for name, entry in self._entries.items() if name.lower().endswith(TABLE_SUFFIXES)}
        tables = sorted(entries.values())
        if len(tables) != 1:
            names = ", ".join(tables[:5]) or "–"
            raise PageError("tables", count=len(tables), names=names[: 2 * _SHOWN_CHARACTERS])
        return tables[0]

    def resolve(self, base: str, name: str) -> str | None:
        """Return the member that a name means, or None. The name is compared, and never opened.

        Args:
            base: The folder in the zip that the name is relative to.
            name: The member's name, with slashes or backslashes between folders.
        """
        wanted = posixpath.normpath(posixpath.join(base, _normalize(name)))
        return wanted if wanted in self._entries else None

    def read(self, name: str, limit: int) -> bytes:
        """Return the content of a member.

        Args:
            name: The member's name, as `find_table` or `resolve` returned it.
            limit: The most bytes that it may have.

        Raises:
            UnpackError: It has more, or is damaged.
            PageError: All that was read is too much.
        """
        if self._read_bytes > MAX_UNPACKED_BYTES:
            raise PageError("unpacked", limit=MAX_UNPACKED_BYTES // MIB)
        try:
            with self._zip.open(self._entries[name]) as file:
                data = file.read(limit + 1)  # what the directory says about its size may be wrong
            self._read_bytes += len(data)
        except Exception as error:  # see above
            raise UnpackError(f"it is damaged ({error})") from error
        if len(data) > limit:
            raise UnpackError(f"it has more than the {limit // MIB} MiB allowed")
        return data


def _check_directory(data: bytes) -> None:
    """Refuse a zip with a huge directory before anyone reads it."""
    size_bytes = directory_bytes(data)
    if size_bytes is None:
        raise PageError("zip", reason="no directory at its end")
    if size_bytes > _MAX_DIRECTORY_BYTES:
        raise PageError("members", limit=MAX_MEMBERS)


def _is_plain_file(entry: zipfile.ZipInfo) -> bool:
    """Tell a file that can be read with bounded memory from links, devices, encrypted and exotic ones."""
    kind = stat.S_IFMT(entry.external_attr >> 16)
    return (
        kind in (0, stat.S_IFREG)
        and not entry.flag_bits & _ENCRYPTED_FLAG
        and entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    )


def _names(entry: zipfile.ZipInfo) -> set[str]:
    """Return the names that an entry may have been meant to have: not every program marks UTF-8, or writes it."""
    names = {entry.filename}
    if not entry.flag_bits & _UTF8_FLAG:
        raw = entry.filename.encode("cp437", "ignore")
        for encoding in ("utf-8", "gb18030"):
            try:
                names.add(raw.decode(encoding))
            except UnicodeDecodeError:
                continue
    return {posixpath.normpath(_normalize(name)) for name in names}


def _normalize(name: str) -> str:
    return unicodedata.normalize("NFC", name.replace("\\", "/"))
