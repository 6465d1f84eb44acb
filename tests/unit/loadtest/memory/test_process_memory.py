"""The memory of a process."""

from __future__ import annotations

import gc
import os

from lychee_loadtest.memory.process_memory import read_heap, read_process, reset_peak


def test_memory_that_is_taken_shows_and_a_reset_peak_falls() -> None:
    gc.collect()  # what earlier tests left would be let go of meanwhile
    before = read_process()
    block = bytearray(os.urandom(1)) * 80_000_000
    during = read_process(os.getpid())
    assert during.rss_bytes - during.file_bytes > before.rss_bytes - before.file_bytes + 70_000_000
    assert during.peak_bytes >= during.rss_bytes
    heap = read_heap()
    assert heap is None or heap > len(block)
    del block
    reset_peak()
    assert read_process().peak_bytes < during.peak_bytes - 70_000_000


def test_shared_pages_are_counted_once() -> None:
    found = read_process()
    assert 0 < found.private_bytes <= found.pss_bytes <= found.rss_bytes
    assert 0 < found.file_bytes < found.rss_bytes
