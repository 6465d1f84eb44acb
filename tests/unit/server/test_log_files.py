"""Logs that stay small: renamed by who writes them, or copied and emptied."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from lychee_server import log_files
from lychee_server.errors import SettingsError

WAIT_S = 60.0
MOST = 2000
# What a gateway is to its logs: a process whose output its parent has opened, with lines of other code in it.
WRITER = """
import logging, os, sys
from pathlib import Path
from lychee_server.gateway.logs import OwnLog
log = OwnLog(Path(sys.argv[1]), int(sys.argv[2]))
logging.basicConfig(handlers=[log], format="%(message)s", level=logging.INFO)
for line in sys.stdin:
    first, last = map(int, line.split())
    for number in range(first, last):
        logging.info("line %d of the log", number)
    os.write(2, b"printed\\n")
"""


def read_all(path: Path) -> list[str]:
    """Return the lines of a log with its older files, oldest first."""
    files = [path.with_name(f"{path.name}.{number}") for number in range(log_files.KEPT, 0, -1)] + [path]
    return [line for file in files if file.exists() for line in file.read_text(encoding="utf-8").splitlines()]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


class Writer:
    """A process that writes a log through descriptors that it inherited."""

    def __init__(self, log: Path, most: int) -> None:
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", WRITER, str(log), str(most)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def write(self, first: int, last: int) -> None:
        """Write these lines, and return when they are written."""
        assert self._process.stdin is not None
        printed = read_all(self.log).count("printed")
        self._process.stdin.write(f"{first} {last}\n".encode())
        self._process.stdin.flush()
        wait_for(lambda: f"line {last - 1} of the log" in read_all(self.log) and self._printed(printed))

    def _printed(self, before: int) -> bool:
        lines = read_all(self.log)
        return lines.count("printed") > before or lines[-1:] == ["printed"]

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "gateway.log"


def test_a_followed_log_loses_no_line_and_stays_small(log: Path, tmp_path: Path) -> None:
    writer = Writer(log, MOST)
    seen = tmp_path / "seen"
    with seen.open("wb") as output:
        follower = subprocess.Popen(["tail", "-n", "+1", "-F", str(log)], stdout=output, stderr=subprocess.DEVNULL)
    try:
        for first in range(0, 1000, 50):  # less than a file, so that the follower sees each one
            writer.write(first, first + 50)
            wait_for(lambda last=first + 49: f"line {last} of the log\n" in seen.read_text(encoding="utf-8"))
    finally:
        follower.kill()
        follower.wait()
        writer.close()
    told = [line for line in seen.read_text(encoding="utf-8").splitlines() if line.startswith("line")]
    assert told == [f"line {number} of the log" for number in range(1000)]
    files = sorted(tmp_path.glob("gateway.log*"))
    assert [file.name for file in files] == ["gateway.log", *(f"gateway.log.{number}" for number in (1, 2, 3, 4))]
    assert max(file.stat().st_size for file in files) < MOST + 100
    kept = [line for line in read_all(log) if line.startswith("line")]
    assert kept == told[-len(kept) :]


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.rename(path.with_name("elsewhere"))])
def test_a_log_that_was_removed_or_renamed_is_begun_anew(log: Path, harm: Callable[[Path], object]) -> None:
    writer = Writer(log, 0)
    try:
        writer.write(0, 1)
        harm(log)
        writer.write(1, 2)
    finally:
        writer.close()
    assert log.read_text(encoding="utf-8") == "line 1 of the log\nprinted\n"


def test_output_that_is_no_file_is_left_alone(log: Path) -> None:
    reader, writer = os.pipe()
    log_files.rotate_own(log, (writer,), 1)
    os.write(writer, b"x")
    assert os.read(reader, 1) == b"x"
    os.close(reader)
    os.close(writer)
    assert not log.exists()


def test_the_log_of_another_program_is_copied_and_emptied_while_that_goes_on(log: Path) -> None:
    with log.open("ab", buffering=0) as writer:
        for number in range(6):
            writer.write(f"{number}\n".encode() * 10)
            log_files.empty_large(log, 15)
        log.chmod(0o640)
        writer.write(b"last\n" * 4)
        log_files.empty_large(log, 15)
        assert log.read_bytes() == b""
        writer.write(b"new\n")
    assert log.read_bytes() == b"new\n"
    older = [log.with_name(f"{log.name}.{number}") for number in range(1, 6)]
    assert [file.read_bytes() for file in older[:4]] == [b"last\n" * 4, b"5\n" * 10, b"4\n" * 10, b"3\n" * 10]
    assert not older[4].exists()
    assert older[0].stat().st_mode & 0o777 == 0o640


def test_a_log_is_emptied_on_a_full_disk_too(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*_: object) -> None:
        raise OSError(28, "No space left on device")

    log.write_text("x" * 100, encoding="utf-8")
    monkeypatch.setattr(log_files.shutil, "copyfileobj", fill)
    log_files.empty_large(log, 10)
    assert log.read_bytes() == b""
    assert not log.with_name("gateway.log.1").exists()


@pytest.mark.parametrize(("most", "size"), [(0, 100), (1000, 100)])
def test_a_small_log_and_one_that_others_see_to_stay(log: Path, most: int, size: int) -> None:
    log.write_text("x" * size, encoding="utf-8")
    log_files.empty_large(log, most)
    assert log.stat().st_size == size


def test_the_size_is_shared_by_a_log_and_its_older_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(log_files.SIZE_VARIABLE, raising=False)
    assert log_files.most_bytes() == 10 * 2**20
    monkeypatch.setenv(log_files.SIZE_VARIABLE, "5")
    assert log_files.most_bytes() == 2**20
    for wrong in ("-1", "much", "1.5"):
        monkeypatch.setenv(log_files.SIZE_VARIABLE, wrong)
        with pytest.raises(SettingsError, match=f"LYCHEE_LOG_MB is '{wrong}'; expected whole MiB"):
            log_files.most_bytes()


def test_an_error_log_stays_small_and_follows_who_renames_it(tmp_path: Path) -> None:
    path = tmp_path / "errors.log"
    handler = log_files.ErrorLog(path, 50)
    for number in range(40):
        handler.emit(logging.makeLogRecord({"msg": f"{number:09}"}))
    assert read_all(path)[-1] == "000000039"
    assert len(list(tmp_path.iterdir())) == log_files.KEPT + 1
    path.rename(tmp_path / "elsewhere")
    handler.emit(logging.makeLogRecord({"msg": "after"}))
    assert path.read_text(encoding="utf-8") == "after\n"
    handler.close()
