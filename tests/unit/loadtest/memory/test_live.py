"""Where a running deployment holds far more than it uses."""

from __future__ import annotations

import pytest
from lychee_loadtest.memory.live import Expected, LiveMemory, ProcessUse, find_fragmentation
from lychee_loadtest.memory.process_memory import MemoryReading

MB = 1_000_000


def process(rss_mb: int, *, device_mb: int = 0, weights_mb: int = 20) -> ProcessUse:
    """Return the process of an encoder."""
    memory = MemoryReading(rss_mb * MB, rss_mb * MB, rss_mb * MB, 0, rss_mb * MB)
    rest = (rss_mb - 60 - weights_mb) * MB
    return ProcessUse("e_0_0", "model", "e", 1, memory, 60 * MB, weights_mb * MB, rest, device_mb * MB)


def live(*processes: ProcessUse) -> LiveMemory:
    """Return a deployment."""
    return LiveMemory(processes, {}, ())


@pytest.mark.parametrize(("rss_mb", "count"), [(500, 0), (720, 0), (740, 1)])
def test_a_process_far_above_its_prediction_is_named(rss_mb: int, count: int) -> None:
    warned = find_fragmentation(live(process(rss_mb)), Expected({"e": 500 * MB}))
    assert len(warned) == count
    assert all(entry.accounted_bytes == 625 * MB and "max_run_elements" in entry.advice for entry in warned)


@pytest.mark.parametrize(("rss_mb", "count"), [(235, 0), (250, 1)])
def test_without_a_prediction_a_model_is_judged_by_its_weights(rss_mb: int, count: int) -> None:
    warned = find_fragmentation(live(process(rss_mb)))
    assert len(warned) == count
    assert all("--plan plan.json" in entry.advice for entry in warned)


def test_a_gpu_is_judged_by_a_prediction_for_it_alone() -> None:
    running = live(process(100, device_mb=900))
    assert find_fragmentation(running) == ()
    (warned,) = find_fragmentation(running, Expected({"e": 500 * MB}, on_gpu=True))
    assert (warned.process, warned.reserved_bytes) == ("GPU", 900 * MB)
