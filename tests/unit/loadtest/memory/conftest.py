"""Measurements as a probe would give them, without a process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from lychee_loadtest.memory.layers import BatchRun, ModelMeasurement, SizeRun

MB = 1_000_000
LOADED = 300 * MB
FIXED = 20 * MB

Measure = Callable[..., ModelMeasurement]


def make_size(
    size: int | None, per_row: float, *, rows: Sequence[int] = (1, 2, 4, 8), rows_per_run: int | None = None
) -> SizeRun:
    """Return runs that grow by so many bytes per row above what is loaded."""
    runs = tuple(BatchRun(count, round(LOADED + FIXED + per_row * count)) for count in rows)
    return SizeRun(size, row_bytes=1000, rows_per_run=rows_per_run, runs=runs, arena_bytes=0)


@pytest.fixture
def measure() -> Measure:
    """Return a function that makes a measurement: 100 MB framework, 200 MB on load, 20 MB at the first run."""

    def make(*sizes: SizeRun, **changes: Any) -> ModelMeasurement:
        measurement = ModelMeasurement(
            model="text_encoder",
            instances=1,
            max_batch_size=32,
            reads_images=False,
            file_bytes=150 * MB,
            provider="CPUExecutionProvider",
            precision="fp32",
            size_axis="sequence_length" if sizes and sizes[0].size else None,
            on_gpu=False,
            framework_bytes=100 * MB,
            shared_bytes=40 * MB,
            loaded_bytes=LOADED,
            load_peak_bytes=700 * MB,
            sizes=tuple(sizes),
            heap_used_bytes=None,
            heap_resident_bytes=0,
        )
        return replace(measurement, **changes)

    return make


@pytest.fixture
def size_run() -> Callable[..., SizeRun]:
    """Return the function that makes runs of one size."""
    return make_size
