"""Log files that stay small: a large one is begun anew, and the last few older ones are kept beside it.

Who writes its own log renames it (`rotate_own`), and nothing is lost. Triton and its stubs write into what they
inherited, and cannot be told of another file: theirs is copied and emptied (`empty_large`), which needs writers that
append. Programs that follow a log by its name know both ways.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import stat
from collections.abc import Sequence
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Final

from lychee_server.defaults import MIB
from lychee_server.errors import SettingsError

__all__ = ["KEPT", "SIZE_VARIABLE", "ErrorLog", "empty_large", "most_bytes", "read_tail", "rotate_own", "set_aside"]

SIZE_VARIABLE: Final = "LYCHEE_LOG_MB"
DEFAULT_MB: Final = 50  # of a log with its older files
KEPT: Final = 4  # older files
APPEND: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


def most_bytes() -> int:
    """Return how large one file of a log may get; 0: any size, because another program sees to that.

    Raises:
        SettingsError: The variable holds no such size.
    """
    text = os.environ.get(SIZE_VARIABLE) or str(DEFAULT_MB)
    if not (text.isascii() and text.isdigit()):
        raise SettingsError(
            f"{SIZE_VARIABLE} is {text!r}; expected whole MiB that a log may take with its older files, or 0 to leave "
            "that to another program"
        )
    return int(text) * MIB // (KEPT + 1)


def read_tail(path: Path, most: int) -> str:
    """Return the last whole lines of a log.

    Args:
        path: The log.
        most: How many bytes of it are read.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as log:
        size = log.seek(0, os.SEEK_END)
        log.seek(max(0, size - most))
        content = log.read(most)
    if size > most:
        content = content.partition(b"\n")[2]
    return content.decode("utf-8", "replace")


def set_aside(path: Path) -> None:
    """Rename a log that holds something to the first of the older ones, and let the oldest go.

    Raises:
        OSError: The folder cannot be written.
    """
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size:
            _make_room(path)
            os.replace(path, _older(path, 1))


def rotate_own(path: Path, descriptors: Sequence[int], most: int) -> None:
    """Begin the log of this process anew where it is large, or where somebody has renamed or removed it.

    A log that cannot be begun anew goes on growing, for it tells why.

    Args:
        path: The log.
        descriptors: What this process writes it through; all of them go on with the new file.
        most: How many bytes it may have; 0: any number.
    """
    about = os.fstat(descriptors[0])
    if not stat.S_ISREG(about.st_mode):
        return
    with contextlib.suppress(OSError):
        if _is(path, about):
            if not most or about.st_size < most:
                return
            set_aside(path)
        opened = os.open(path, APPEND, stat.S_IMODE(about.st_mode))
        for descriptor in descriptors:
            os.dup2(opened, descriptor)
        os.close(opened)


def empty_large(path: Path, most: int) -> None:
    """Copy a large log to the first of the older ones, and empty it; whoever appends to it goes on doing so.

    What is written in between, within microseconds, is lost. On a full disk all of it is, for the sake of the rest.

    Args:
        path: The log; it may be absent.
        most: How many bytes it may have; 0: never empty it.
    """
    with contextlib.suppress(OSError), path.open("r+b", buffering=0) as log:
        if not most or os.fstat(log.fileno()).st_size < most:
            return
        copy = _older(path, 1)
        try:
            _make_room(path)
            with copy.open("wb") as target:
                os.fchmod(target.fileno(), stat.S_IMODE(os.fstat(log.fileno()).st_mode))
                shutil.copyfileobj(log, target, MIB)
        except OSError:
            copy.unlink(missing_ok=True)
        log.truncate(0)


class ErrorLog(WatchedFileHandler):
    """Writes a file that stays small, and goes on with a new one when somebody else has renamed it.

    Args:
        path: The file.
        most: How many bytes it may have; 0: any number.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(self, path: Path, most: int) -> None:
        super().__init__(path, encoding="utf-8")
        self._path = path
        self._most = most

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        with contextlib.suppress(OSError):
            about = self._path.stat()
            if self._most and stat.S_ISREG(about.st_mode) and about.st_size >= self._most:
                set_aside(self._path)
        super().emit(record)


def _older(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _make_room(path: Path) -> None:
    """Count the older files of a log up by one; the last of them goes."""
    for number in range(KEPT, 1, -1):
        with contextlib.suppress(FileNotFoundError):
            os.replace(_older(path, number - 1), _older(path, number))


def _is(path: Path, about: os.stat_result) -> bool:
    """Tell whether the path still names the file that a descriptor writes."""
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    return (named.st_dev, named.st_ino) == (about.st_dev, about.st_ino)
