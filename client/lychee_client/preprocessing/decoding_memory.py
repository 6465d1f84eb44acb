"""How much memory decoded images may take together, in the whole process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from weakref import WeakMethod

from lychee_client._errors import ConfigurationError, InvalidInputError

VARIABLE: Final = "LYCHEE_DECODING_MB"
DEFAULT_MB: Final = 256
MIB: Final = 2**20
# Images that take less are decoded without asking: a few threads hold a few of them, and they must not wait.
SMALL_BYTES: Final = 16 * MIB


class DecodingMemory:
    """Counts the bytes of images that are being decoded. Safe to use from several threads.

    Args:
        limit_bytes: The most that images above SMALL_BYTES may take together with all others.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._used_bytes = 0
        self._changed = threading.Condition()
        self._watchers: set[WeakMethod[Callable[[], Any]]] = set()

    def check(self, size_bytes: int, name: str) -> None:
        """Refuse an image that would not even fit alone.

        Raises:
            InvalidInputError: It takes more than the limit.
        """
        if size_bytes > self.limit_bytes:
            raise InvalidInputError(
                f"{name} takes {size_bytes / MIB:.0f} MiB while it is decoded, the limit is "
                f"{self.limit_bytes / MIB:.0f} MiB ({VARIABLE}); shrink it, or send it as JPEG"
            )

    def take(self, size_bytes: int) -> bool:
        """Take so much, or say that it is not free."""
        with self._changed:
            if size_bytes > SMALL_BYTES and 0 < self._used_bytes > self.limit_bytes - size_bytes:
                return False
            self._used_bytes += size_bytes
            return True

    def give(self, size_bytes: int) -> None:
        """Give back what was taken, and tell those who wait for it."""
        with self._changed:
            self._used_bytes -= size_bytes
            self._changed.notify_all()
            watchers = [method for watcher in self._watchers if (method := watcher()) is not None]
        for method in watchers:
            method()

    def watch(self, method: Callable[[], Any]) -> None:
        """Call this method, as long as its object lives, whenever something was given back."""
        with self._changed:
            self._watchers = {watcher for watcher in self._watchers if watcher() is not None} | {WeakMethod(method)}

    @contextmanager
    def hold(self, size_bytes: int) -> Iterator[None]:
        """Wait until so much is free, and hold it for the body."""
        while not self.take(size_bytes):
            with self._changed:
                self._changed.wait(1.0)
        try:
            yield
        finally:
            self.give(size_bytes)


def read_limit_bytes() -> int:
    """Return LYCHEE_DECODING_MB, or the default, in bytes.

    Raises:
        ConfigurationError: The variable is no positive number.
    """
    value = os.environ.get(VARIABLE) or str(DEFAULT_MB)
    if not value.isascii() or not value.isdigit() or not int(value):
        raise ConfigurationError(f"{VARIABLE} is {value!r}; expected a positive number of MiB such as {DEFAULT_MB}")
    return int(value) * MIB


_shared: Final[list[DecodingMemory]] = []  # none before the first client
_lock: Final = threading.Lock()


def decoding_memory() -> DecodingMemory:
    """Return the memory that all clients of this process share.

    Raises:
        ConfigurationError: See read_limit_bytes; raised by the first call.
    """
    with _lock:
        if not _shared:
            _shared.append(DecodingMemory(read_limit_bytes()))
        return _shared[0]
