"""Writes the records of an experiment, so that no call waits for the disk, and none fails because of it."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from lychee_client import LycheeError
from lychee_client.experiments.record_file import RecordFile
from lychee_client.experiments.records import to_lines

from lychee_server.defaults import MIB

MAX_FILE_BYTES: Final = 64 * MIB
MAX_WAITING: Final = 10_000
WARN_EVERY_S: Final = 60.0

_logger = logging.getLogger(__name__)


class Recorder:
    """Appends to a file of this process alone, and begins another when it is large.

    Args:
        folder: Where the files are; it is made when something is written.
        name: Begins the name of each file.
        max_bytes: What all files of this name may take, those of other processes included. What comes then is lost:
            an experiment whose beginning was thrown away would be worth less.
        lose: Is told how many records were lost.
    """

    def __init__(self, folder: Path, name: str, max_bytes: int, lose: Callable[[int], None]) -> None:
        self._folder = folder
        self._name = name
        self._max_bytes = max_bytes
        self._lose = lose
        self._file: RecordFile | None = None
        self._room = threading.BoundedSemaphore(MAX_WAITING)
        self._warned_at_s = -WARN_EVERY_S
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="lychee-experiment")

    def note(self, record: Mapping[str, Any]) -> None:
        """Write a record as soon as possible; if that is not possible, it is lost."""
        if not self._room.acquire(blocking=False):
            self._give_up(1, f"{MAX_WAITING} records wait for the disk already")
            return
        self._pool.submit(self._note, record)

    async def write(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Write records, and return when they are written.

        Raises:
            LycheeError: They are lost.
        """
        await asyncio.get_running_loop().run_in_executor(self._pool, self._append, records)

    def close(self) -> None:
        """Write what waits, and close the file."""
        self._pool.shutdown()
        if self._file is not None:
            self._file.close()

    def _note(self, record: Mapping[str, Any]) -> None:
        try:
            self._append([record])
        except LycheeError:
            pass  # told there
        finally:
            self._room.release()

    def _append(self, records: Sequence[Mapping[str, Any]]) -> None:
        try:
            size = None if self._file is None else self._file.size_bytes
            if self._file is None or size is None or size >= MAX_FILE_BYTES:
                self._file = self._open(self._file)
            self._file.append(to_lines(records))
        except (LycheeError, OSError, ValueError) as error:  # ValueError: a record that is no JSON
            self._give_up(len(records), error)
            raise LycheeError("the record cannot be written; see the gateway's log") from error

    def _give_up(self, count: int, reason: object) -> None:
        """Count lost records, and say so, though not all the time."""
        self._lose(count)
        if time.monotonic() - self._warned_at_s >= WARN_EVERY_S:
            self._warned_at_s = time.monotonic()
            _logger.warning("records of the experiment are lost: %s", reason)

    def _open(self, full: RecordFile | None) -> RecordFile:
        self._folder.mkdir(parents=True, exist_ok=True)
        taken = sum(path.stat().st_size for path in self._folder.glob(f"{self._name}-*.jsonl"))
        if taken >= self._max_bytes:
            raise LycheeError(
                f"the files in {self._folder} take {taken // MIB} MiB; expected less than max_log_mb, "
                f"{self._max_bytes // MIB}: end the experiment, or allow more"
            )
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        opened = RecordFile(self._folder / f"{self._name}-{stamp}-{os.getpid()}-{secrets.token_hex(4)}.jsonl")
        if full is not None:
            full.close()
        return opened
