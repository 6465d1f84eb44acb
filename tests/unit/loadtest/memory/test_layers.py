"""Measurements to layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from lychee_loadtest.memory.layers import Layers, SizeRun, predict

MB = 1_000_000


def test_what_no_batch_changes_is_weights_and_the_rest_grows_with_it(
    measure: Any, size_run: Callable[..., SizeRun]
) -> None:
    found = predict(measure(size_run(None, 10 * MB)), 16)
    assert found.layers.framework == 100 * MB
    assert found.layers.weights == pytest.approx(220 * MB)
    assert found.layers.temporary == pytest.approx(160 * MB)
    assert found.layers.attention == 0
    assert found.layers.total == pytest.approx(480 * MB)
    assert found.extrapolated
    assert found.error_bytes == pytest.approx(0.3 * 80 * MB)  # 8 rows beyond the 8 that were measured


def test_attention_is_the_part_that_grows_with_the_square_of_the_sequence(
    measure: Any, size_run: Callable[..., SizeRun]
) -> None:
    sizes = [size_run(length, 50_000 * length + 96 * length**2) for length in (128, 256, 512)]
    found = predict(measure(*sizes), 8)
    assert found.layers.attention == pytest.approx(8 * 96 * 512**2, rel=0.01)
    assert found.layers.temporary == pytest.approx(8 * 50_000 * 512, rel=0.01)


def test_growth_linear_in_the_sequence_has_no_attention_state(measure: Any, size_run: Callable[..., SizeRun]) -> None:
    sizes = [size_run(length, 45_000 * length) for length in (128, 256, 512)]
    assert predict(measure(*sizes), 8).layers.attention == pytest.approx(0, abs=MB / 100)


def test_memory_stops_growing_where_the_backend_slices(measure: Any, size_run: Callable[..., SizeRun]) -> None:
    model = measure(size_run(None, 10 * MB, rows=(1, 2, 4), rows_per_run=4))
    small, large = predict(model, 4), predict(model, 24)
    assert (large.rows, large.rows_per_run, large.extrapolated) == (24, 4, False)
    # Beyond it wait the inputs alone: 20 rows of 1,000 bytes, as requests and merged.
    assert large.layers.total - small.layers.total == 20 * 1000 * 2


def test_a_batch_is_never_larger_than_the_model_takes(measure: Any, size_run: Callable[..., SizeRun]) -> None:
    model = measure(size_run(None, 10 * MB), max_batch_size=8)
    assert predict(model, 100) == predict(model, 8)


def test_what_was_measured_is_said_as_measured(measure: Any, size_run: Callable[..., SizeRun]) -> None:
    bent = size_run(None, 10 * MB)
    runs = (*bent.runs[:-1], type(bent.runs[-1])(8, bent.runs[-1].peak_bytes + 30 * MB))
    model = measure(type(bent)(None, 1000, None, runs, 0))
    assert predict(model, 8).layers.total == runs[-1].peak_bytes
    assert predict(model, 16).error_bytes > 50 * MB


def test_a_model_that_never_runs_needs_its_weights(measure: Any, size_run: Callable[..., SizeRun]) -> None:
    idle = predict(measure(size_run(None, 10 * MB)), 0)
    assert idle.layers == Layers(weights=200 * MB, framework=100 * MB)
    assert predict(measure(), 8).layers == idle.layers
