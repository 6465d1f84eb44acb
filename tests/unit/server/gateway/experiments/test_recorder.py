"""The recorder on a disk that fills up and is emptied: what is lost is counted and said, and the rest is whole."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lychee_client import LycheeError
from lychee_client.experiments import record_file
from lychee_server.gateway.experiments import recorder as recorder_module
from lychee_server.gateway.experiments.recorder import Recorder

SPACE = 300  # bytes that the disk has for the first records


class Disk:
    """Takes so many bytes, part of a line too, and then none."""

    def __init__(self) -> None:
        self.left = SPACE
        self._write = os.write

    def write(self, file: int, data: bytes) -> int:
        taken = data[: self.left]
        if not taken:
            raise OSError(28, "No space left on device")
        self.left -= len(taken)
        return self._write(file, taken)


@pytest.fixture
def lost() -> list[int]:
    return []


@pytest.fixture
def make(tmp_path: Path, lost: list[int]) -> Callable[[], Recorder]:
    return lambda: Recorder(tmp_path, "shop", 2**20, lost.append)


def read(folder: Path) -> tuple[list[Any], int]:
    """Return the records, and how many lines are damaged."""
    records, damaged = [], 0
    for line in (line for path in folder.glob("*.jsonl") for line in path.read_text().splitlines() if line):
        try:
            records.append(json.loads(line)["number"])
        except ValueError:
            damaged += 1
    return records, damaged


def test_what_a_full_disk_costs_is_counted_and_said_once_and_no_later_record_is_torn(
    make: Callable[[], Recorder],
    lost: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    disk = Disk()
    monkeypatch.setattr(record_file.os, "write", disk.write)
    recorder = make()
    for number in range(20):
        recorder.note({"number": number, "text": "x" * 40})
    recorder._pool.submit(lambda: None).result()
    written, damaged = read(tmp_path)
    assert (written, damaged) == ([0, 1, 2, 3], 1)
    assert sum(lost) == 20 - len(written)
    disk.left = 10**6
    for number in range(20, 23):
        recorder.note({"number": number})
    recorder.close()
    assert read(tmp_path) == ([0, 1, 2, 3, 20, 21, 22], 1)
    assert sum(lost) == 16
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == 1
    assert "records of the experiment are lost" in told[0]


def test_events_that_cannot_be_written_fail_as_a_whole_and_are_counted(
    make: Callable[[], Recorder], lost: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk()
    disk.left = 0
    monkeypatch.setattr(record_file.os, "write", disk.write)
    recorder = make()
    with pytest.raises(LycheeError, match="cannot be written"):
        asyncio.run(recorder.write([{"number": 1}, {"number": 2}]))
    recorder.close()
    assert lost == [2]


def test_a_record_that_is_no_json_is_counted_as_lost(
    make: Callable[[], Recorder], lost: list[int], tmp_path: Path
) -> None:
    recorder = make()
    recorder.note({"number": float("nan")})
    recorder.note({"number": 1})
    recorder.close()
    assert (lost, read(tmp_path)) == ([1], ([1], 0))


def test_a_disk_that_hangs_costs_records_and_says_so(
    make: Callable[[], Recorder],
    lost: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(recorder_module, "MAX_WAITING", 3)
    goes_on = threading.Event()
    write = os.write

    def wait(file: int, data: bytes) -> int:
        goes_on.wait(30)
        return write(file, data)

    monkeypatch.setattr(record_file.os, "write", wait)
    recorder = make()
    for number in range(8):
        recorder.note({"number": number})
    assert sum(lost) == 5
    goes_on.set()
    recorder.close()
    assert read(tmp_path) == ([0, 1, 2], 0)
    (told,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "3 records wait for the disk already" in told
