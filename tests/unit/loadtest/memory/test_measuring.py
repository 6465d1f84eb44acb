"""A probe's readings to a measurement."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from lychee_loadtest.memory import measuring
from lychee_loadtest.memory.deployment import ServedModel
from lychee_loadtest.memory.measuring import MeasurementError, measure_model, summarize
from lychee_loadtest.memory.probe import rows_per_run

MB = 1_000_000
CONFIG: dict[str, Any] = {"name": "e", "parameters": {"max_run_elements": {"string_value": "2048"}}}
LOG = """\
... [I:onnxruntime:Default, bfc_arena.cc:280 Reserve] Reserving memory in BFCArena for Cpu size: 3000000
... [I:onnxruntime:Default, bfc_arena.cc:207 Extend] Total allocated bytes: 4000000
... [I:onnxruntime:Default, bfc_arena.cc:207 Extend] Total allocated bytes: 9000000
"""


def served(**changes: Any) -> ServedModel:
    """Return a model that lies nowhere."""
    fields: dict[str, Any] = {"config": CONFIG, "file_bytes": 5, "instances": 1, "max_batch_size": 8, "axes": {}}
    return ServedModel(name="e", path=Path("e/1/model.onnx"), **{**fields, **changes})


def reading(rss_mb: int, peak_mb: int | None = None, *, device_mb: int = 0) -> dict[str, int]:
    """Return one reading with 40 MB of libraries."""
    peak = rss_mb if peak_mb is None else peak_mb
    return {"rss_bytes": rss_mb * MB, "peak_bytes": peak * MB, "file_bytes": 40 * MB, "device_bytes": device_mb * MB}


def result(device_mb: int = 0) -> dict[str, Any]:
    """Return what a probe gives."""
    empty, loaded = reading(100, device_mb=device_mb), reading(300, 700, device_mb=2 * device_mb)
    return {
        "readings": {"empty": empty, "loaded": loaded},
        "batches": [{"rows": 1, **reading(310, 320, device_mb=3 * device_mb)}],
        "rows_per_run": rows_per_run(CONFIG, {"input_ids": 512}),
        "row_bytes": 8192,
        "execution": {"provider": "P", "precision": "fp32"},
        "heap_used_bytes": 200 * MB,
    }


def test_readings_become_floor_peaks_and_what_bounds_a_run() -> None:
    found = summarize(served(), 512, result(), LOG)
    assert (found.framework_bytes, found.shared_bytes, found.loaded_bytes) == (100 * MB, 40 * MB, 300 * MB)
    assert (found.load_peak_bytes, found.heap_used_bytes, found.heap_resident_bytes) == (700 * MB, 200 * MB, 270 * MB)
    (size,) = found.sizes
    assert (size.size, size.row_bytes, size.rows_per_run, size.runs[0].peak_bytes) == (512, 8192, 4, 320 * MB)


def test_no_bound_slices_no_batch_and_a_large_row_runs_alone() -> None:
    row = {"input_ids": 512, "image_embeds": 4096}
    assert (rows_per_run({}, row), rows_per_run(CONFIG, row)) == (None, 1)
    named = {"parameters": {**CONFIG["parameters"], "run_input": {"string_value": "input_ids"}}}
    assert rows_per_run(named, row) == 4


def test_the_arena_is_what_it_reserved_without_the_weights_in_it() -> None:
    assert summarize(served(), None, result(), LOG).sizes[0].arena_bytes == 6 * MB
    assert summarize(served(), None, result(), "").sizes[0].arena_bytes == 0


def test_on_a_gpu_the_device_is_measured() -> None:
    found = summarize(served(), None, result(device_mb=50), "")
    assert found.on_gpu
    assert (found.framework_bytes, found.shared_bytes, found.loaded_bytes) == (50 * MB, 0, 100 * MB)
    assert found.sizes[0].runs[0].peak_bytes == 150 * MB


def test_a_model_that_cannot_be_loaded_is_named_with_the_reason(tmp_path: Path) -> None:
    broken = tmp_path / "e" / "1" / "model.onnx"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"not a model")
    model = served(config={"name": "e", "max_batch_size": 8})
    with pytest.raises(MeasurementError, match=r"^e could not be measured: .*is not a model that ONNX Runtime"):
        measure_model(ServedModel(**{**vars(model), "path": broken}))


def test_a_killed_process_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        measuring, "_COMMAND", (sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    )
    with pytest.raises(MeasurementError, match=r"ended by signal 9.*memory ran out"):
        measure_model(served())


def test_a_model_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "_COMMAND", (sys.executable, "-c", "import threading; threading.Event().wait()"))
    monkeypatch.setattr(measuring, "PROBE_TIMEOUT_S", 0.01)
    with pytest.raises(MeasurementError, match=r"Measuring e took more than 0.01 s .*smaller --tokens"):
        measure_model(served())
