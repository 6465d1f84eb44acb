"""API keys: from the settings and from a file that is read again when it changes."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from lychee_server.errors import SettingsError
from lychee_server.gateway.settings import GatewaySettings

CHECK_INTERVAL_S: Final = 1.0

_logger = logging.getLogger(__name__)


class ApiKeys:
    """The keys that open a gateway, held as SHA-256 digests.

    Args:
        keys: The keys that the settings name.
        path: A file with one key per line; empty lines and lines that begin with # count for nothing.
        clock: Tells the seconds; for tests.

    Raises:
        SettingsError: The file cannot be read or holds no key, or a key cannot be sent in a header.
    """

    def __init__(
        self, keys: Iterable[str], path: Path | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fixed = tuple(_digest(_check_key(key, "an API key of the settings")) for key in keys)
        self._path = path
        self._clock = clock
        self._from_file: tuple[bytes, ...] = ()
        self._version: tuple[int, ...] | None = None
        self._checked_at_s = clock()
        self._failing = False
        if path is not None:
            self._from_file, self._version = self._read_first(path)

    @classmethod
    def load(cls, settings: GatewaySettings) -> ApiKeys:
        """Return the keys of the settings.

        Raises:
            SettingsError: See the class.
        """
        return cls(settings.api_keys, settings.api_keys_file)

    @property
    def required(self) -> bool:
        """True if a caller needs a key."""
        return bool(self._fixed) or self._path is not None

    def accepts(self, key: str) -> bool:
        """Say whether this is one of the keys, in a time that does not depend on which one or how much of it fits."""
        self._refresh()
        digest = _digest(key)
        found = False
        for known in (*self._fixed, *self._from_file):
            found |= hmac.compare_digest(known, digest)
        return found

    def _read_first(self, path: Path) -> tuple[tuple[bytes, ...], tuple[int, ...]]:
        try:
            version = _file_version(path)
            digests = _read_digests(path)
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"the file of API keys, {path}, cannot be read ({_reason(error)}); expected UTF-8, one key per line"
            ) from error
        if not digests:
            raise SettingsError(f"the file of API keys, {path}, holds no key; expected one per line, not behind a #")
        return digests, version

    def _refresh(self) -> None:
        """Read the file again if it changed, at most once a second; one that cannot be read leaves the keys alone."""
        if self._path is None or self._clock() - self._checked_at_s < CHECK_INTERVAL_S:
            return
        self._checked_at_s = self._clock()
        try:
            version = _file_version(self._path)
            if version == self._version:
                return
            digests = _read_digests(self._path)
        except (OSError, UnicodeDecodeError, SettingsError) as error:
            if not self._failing:
                _logger.error("API keys: the file cannot be read (%s); the keys read before stay valid", _reason(error))
            self._failing = True
            return
        self._from_file, self._version, self._failing = digests, version, False
        _logger.warning("API keys: the file changed; it holds %d keys now", len(digests))


def _file_version(path: Path) -> tuple[int, ...]:
    status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _read_digests(path: Path) -> tuple[bytes, ...]:
    lines = enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1)
    stripped = ((number, line.strip()) for number, line in lines)
    return tuple(
        _digest(_check_key(line, f"line {number} of {path}"))
        for number, line in stripped
        if line and not line.startswith("#")
    )


def _check_key(key: str, where: str) -> str:
    """Return the key; the message never holds it."""
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise SettingsError(f"{where} cannot be sent in a header; expected printable ASCII without spaces")
    return key


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error) if isinstance(error, SettingsError) else "it is not UTF-8"
