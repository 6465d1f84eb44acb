"""What a file is: text with columns, JSON lines, a workbook, or something else that people take for a table."""

from __future__ import annotations

import io
import zipfile
from pathlib import PurePath
from typing import Final, Literal, TypeAlias

from lychee_evaluate.tables.message import TableError
from lychee_evaluate.tables.zip_directory import directory_bytes

Kind: TypeAlias = Literal["text", "json", "workbook"]

SUFFIXES: Final[dict[str, Kind]] = {
    **dict.fromkeys((".csv", ".tsv", ".tab", ".txt"), "text"),
    **dict.fromkeys((".jsonl", ".ndjson"), "json"),
    **dict.fromkeys((".xlsx", ".xlsm", ".xltx", ".xltm"), "workbook"),
}
_FOREIGN: Final = {
    ".xls": "old_workbook",
    ".et": "old_workbook",
    ".xlsb": "binary_workbook",
    ".ods": "other_office",
    ".numbers": "other_office",
}
_OLE: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED: Final = "EncryptedPackage".encode("utf-16-le")
_WEB: Final = (b"<html", b"<!doctype html", b"<table", b"<?xml", b"<meta", b"<style")
_MAX_DIRECTORY_BYTES: Final = 2**20


def find_kind(name: PurePath, data: bytes) -> Kind:
    """Return what a file is: what its first bytes say counts more than its name.

    Raises:
        TableError: It is nothing that is read here; the message says what to do.
    """
    if data.startswith(_OLE):
        raise TableError("encrypted" if _ENCRYPTED in data else "old_workbook")
    if data.startswith(b"PK"):
        _check_zip(data)
        return "workbook"
    start = data[:200].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(_WEB):
        raise TableError("web_page")
    kind = check_suffix(name)
    if kind == "workbook":
        raise TableError("empty" if not data else "no_workbook")
    return kind


def check_suffix(name: PurePath) -> Kind:
    """Return what a file should be by its name.

    Raises:
        TableError: The name has another suffix.
    """
    suffix = name.suffix.lower()
    if suffix in _FOREIGN:
        raise TableError(_FOREIGN[suffix])
    if suffix not in SUFFIXES:
        raise TableError("suffix", suffix=suffix[:20], expected=", ".join(SUFFIXES))
    return SUFFIXES[suffix]


def _check_zip(data: bytes) -> None:
    size = directory_bytes(data)
    if size is None or size > _MAX_DIRECTORY_BYTES:
        raise TableError("workbook_damaged", reason="no directory" if size is None else "too many parts")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = set(archive.namelist())
    except Exception as error:  # zipfile raises whatever damaged bytes make it stumble over
        raise TableError("workbook_damaged", reason=str(error)[:80]) from error
    if "xl/workbook.bin" in names:
        raise TableError("binary_workbook")
    if "mimetype" in names or "Index/Document.iwa" in names:
        raise TableError("other_office")
    if "[Content_Types].xml" not in names:
        raise TableError("no_workbook")
