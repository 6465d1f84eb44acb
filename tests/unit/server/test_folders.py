"""Where the server side keeps its files."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import pytest
from lychee_server import defaults
from lychee_server.errors import FolderError
from lychee_server.state import claim


def test_a_cache_folder_that_can_be_written_is_made_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LYCHEE_CACHE_DIR", str(tmp_path / "new" / "cache"))
    assert defaults.usable_cache_dir() == tmp_path / "new" / "cache"
    assert not list((tmp_path / "new" / "cache").iterdir())


def test_a_cache_folder_that_cannot_be_written_is_replaced_with_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("LYCHEE_CACHE_DIR", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(defaults.tempfile, "gettempdir", lambda: str(tmp_path))
    with caplog.at_level(logging.WARNING, "lychee_server"):
        instead = defaults.usable_cache_dir()
    assert instead.parent == tmp_path
    assert instead.is_dir()
    assert f"{tmp_path / 'file' / 'cache'} cannot be written (Not a directory)" in caplog.text


def test_a_state_folder_that_cannot_be_made_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("LYCHEE_STATE_DIR", str(tmp_path / "file" / "state"))
    with pytest.raises(FolderError, match=r"state cannot be written \(Not a directory\).*LYCHEE_STATE_DIR"):
        claim()


def test_a_full_disk_is_noticed_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    monkeypatch.setattr(defaults.tempfile, "gettempdir", lambda: str(tmp_path))
    for use in (defaults.usable_cache_dir, claim):
        with pytest.raises(FolderError, match=r"No space left on device.* MiB free"):
            use()
