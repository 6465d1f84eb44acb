"""A file of records, to which threads and processes append."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

from lychee_client._errors import ConfigurationError, LycheeError


class RecordFile:
    """Appends records to a file, each call with one write to its end.

    So threads and processes of one machine may share a file (not over a network file system).

    Args:
        path: The file to append to; if it is missing it is made, for its owner and group to read.

    Raises:
        ConfigurationError: The file cannot be opened for writing.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()  # close() must not pull the file away from under a write
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o640)
        except OSError as error:
            raise ConfigurationError(
                f"the log {self.path} cannot be opened: {error.strerror}; check the folder and its permissions"
            ) from error
        self._closed = False
        self._is_torn = False
        self._end_torn_line()

    @property
    def size_bytes(self) -> int | None:
        """How large the file is; None where it was closed or deleted."""
        with self._lock:
            status = None if self._closed else os.fstat(self._file)
        return None if status is None or not status.st_nlink else status.st_size

    def append(self, lines: bytes) -> None:
        """Write whole lines.

        Raises:
            LycheeError: They cannot be written.
        """
        with self._lock:
            if self._closed:
                raise LycheeError(f"the log {self.path} is closed; open another ExperimentLog")
            if self._is_torn:
                self._end_torn_line()
            try:
                written = os.write(self._file, lines)
            except OSError as error:
                raise LycheeError(f"nothing was logged: writing to {self.path} failed: {error.strerror}") from error
            if written < len(lines):
                self._end_torn_line()
                raise LycheeError(f"nothing was logged: {self.path} took {written} of {len(lines)} bytes; free space")

    def close(self) -> None:
        """Close the file; closing twice is no error."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._file)

    def _end_torn_line(self) -> None:
        """Keep half a line, left by a crash or a full disk, from swallowing the next record."""
        with contextlib.suppress(OSError):  # a pipe cannot be read back, a full disk not be written
            size = os.fstat(self._file).st_size
            self._is_torn = bool(size) and os.pread(self._file, 1, size - 1) != b"\n"
            if self._is_torn and os.write(self._file, b"\n"):
                self._is_torn = False
