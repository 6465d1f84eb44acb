"""Checks of what the client keeps on this machine: downloaded tokenizers. A wrong clock shows in their ages."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from lychee_client._config import cache_dir
from lychee_client.checks.check import Check, CheckContext, CheckResult, existing_folder

CLOCK_TOLERANCE_S: Final = 60.0  # file servers have clocks of their own
UNFINISHED_AGE_S: Final = 3600.0
MEGABYTE: Final = 10**6
_CACHED = re.compile(r"tokenizer-(?P<sha256>[0-9a-f]{64})\.json(?P<unfinished>.*)")


def check_cache(_: CheckContext) -> Iterator[CheckResult]:
    """The tokenizers that the client keeps on disk are whole, and new ones can be kept."""
    folder = cache_dir()
    parent = existing_folder(folder)
    if not os.access(parent, os.W_OK | os.X_OK):
        advice = f"make {parent} writable, or set LYCHEE_CACHE_DIR"
        yield CheckResult("cache", "warning", f"{parent} is not writable: every client downloads again", advice)
    kept, size_bytes, sound = 0, 0, True
    for path, match in _cached_files(folder):
        content = path.read_bytes()
        size_bytes += len(content)
        if not match["unfinished"]:
            kept += 1
            if hashlib.sha256(content).hexdigest() != match["sha256"]:
                sound = False
                seen = f"{path} is damaged: its SHA-256 is not the one in its name"
                yield CheckResult("cache", "warning", seen, f"rm {path}; the next client downloads it again")
        elif time.time() - path.stat().st_mtime > UNFINISHED_AGE_S:
            sound = False
            yield CheckResult("cache", "warning", f"{path} is an unfinished download", f"rm {path}")
    if sound and parent == folder:
        yield CheckResult("cache", "ok", f"{kept} tokenizers, {size_bytes / MEGABYTE:.1f} MB in {folder}")
    elif sound:
        yield CheckResult("cache", "ok", f"{folder} does not exist yet; the first call makes it")


def check_clock(_: CheckContext) -> Iterator[CheckResult]:
    """No file that this package or its installation wrote is newer than now."""
    now = time.time()
    modified = {
        path: path.stat().st_mtime for path in (Path(__file__), *(path for path, _ in _cached_files(cache_dir())))
    }
    newest = max(modified, key=lambda path: modified[path])
    seen = f"it is {_utc(now)}"
    if modified[newest] > now + CLOCK_TOLERANCE_S:
        seen += f" by this machine's clock, but {newest} was written at {_utc(modified[newest])}"
        advice = f"set the clock, for certificates and logs rely on it; if it is right, touch {newest}"
        yield CheckResult("clock", "warning", seen, advice)
    else:
        yield CheckResult("clock", "ok", f"{seen}; no file of the client is newer")


def _cached_files(folder: Path) -> Iterator[tuple[Path, re.Match[str]]]:
    for path in sorted(folder.glob("tokenizer-*")):
        match = _CACHED.fullmatch(path.name)
        if match is not None and path.is_file():
            yield path, match


def _utc(time_s: float) -> str:
    return f"{datetime.fromtimestamp(time_s, timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


CACHE_CHECKS: Final[Mapping[str, Check]] = {"cache": check_cache, "clock": check_clock}
