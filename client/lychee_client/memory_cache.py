"""An embedding cache in this process: what was used last stays, up to so many bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

ENTRY_OVERHEAD_BYTES: Final = 192  # what CPython 3.11 needs for two bytes objects in an OrderedDict: 171, measured
MAX_SHARE: Final = 8  # an entry may take one part in so many


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """How a cache is used.

    Attributes:
        backend: "memory" or "redis".
        entries: How many embeddings are in it; None where others put some there too.
        bytes: How many bytes they take; None in the same case.
        max_bytes: How many bytes they may take; None in the same case.
        hits: How many embeddings were found since the start.
        misses: How many embeddings were not found.
        evictions: How many embeddings went because others needed their place.
        failures: How many times Redis did not do what it was asked.
    """

    backend: str
    entries: int | None
    bytes: int | None
    max_bytes: int | None
    hits: int
    misses: int
    evictions: int = 0
    failures: int = 0


class MemoryEmbeddingCache:
    """Keeps what was used last; see EmbeddingCache.

    Args:
        max_bytes: How many bytes all entries together may take, with what Python needs to keep them.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, bytes] = OrderedDict()
        self._bytes = self._hits = self._misses = self._evictions = 0

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See EmbeddingCache."""
        with self._lock:
            found = [self._entries.get(key) for key in keys]
            hits = 0
            for key, value in zip(keys, found, strict=True):
                if value is not None:
                    self._entries.move_to_end(key)
                    hits += 1
            self._hits += hits
            self._misses += len(keys) - hits
        return found

    def put_many(self, entries: Mapping[bytes, bytes]) -> None:
        """See EmbeddingCache. What would take more than an eighth of the space is not kept."""
        with self._lock:
            for key, value in entries.items():
                if _size(key, value) * MAX_SHARE > self._max_bytes:
                    continue
                old = self._entries.pop(key, None)
                self._bytes += _size(key, value) - (0 if old is None else _size(key, old))
                self._entries[key] = value
            while self._bytes > self._max_bytes:
                self._bytes -= _size(*self._entries.popitem(last=False))
                self._evictions += 1

    def statistics(self) -> CacheStatistics:
        """Return how the cache is used."""
        with self._lock:
            return CacheStatistics(
                "memory",
                len(self._entries),
                self._bytes,
                self._max_bytes,
                self._hits,
                self._misses,
                self._evictions,
            )

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0


def _size(key: bytes, value: bytes) -> int:
    return len(key) + len(value) + ENTRY_OVERHEAD_BYTES
