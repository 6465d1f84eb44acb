"""Measure every model of a deployment, each size in a process of its own, so that the peaks are clean."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from lychee_server import defaults
from lychee_server.errors import LycheeServerError
from lychee_server.installation import find_backend_model

from lychee_loadtest.memory.deployment import TOKEN_AXIS, ServedModel
from lychee_loadtest.memory.layers import BatchRun, ModelMeasurement, SizeRun

__all__ = ["MEASURED_BATCHES", "MeasurementError", "measure_model", "sizes_of", "summarize"]

MEASURED_BATCHES: Final = (1, 2, 4, 8)  # ascending, because memory depends on what ran before, as on a server
PROBE_TIMEOUT_S: Final = 900
SIZE_STEP: Final = 16  # the client pads rows to multiples of it
_COMMAND: Final = (sys.executable, "-m", "lychee_loadtest.memory.probe")
_ARENA_TOTAL: Final = re.compile(r"Total allocated bytes: (\d+)")
_ARENA_WEIGHTS: Final = re.compile(r"Reserving memory in BFCArena for \S+ size: (\d+)")


class MeasurementError(LycheeServerError):
    """A model could not be measured: it does not load, or not enough memory is free to load it."""


def sizes_of(model: ServedModel, tokens: int | None) -> tuple[int | None, ...]:
    """Return the row sizes to measure, ascending: a quarter, a half and the whole of the largest that is asked for.

    Args:
        model: A model with or without an axis of variable size.
        tokens: The largest number of tokens; None for the model's own.
    """
    if model.size_axis is None:
        return (None,)
    largest = model.axes[model.size_axis]
    if tokens is not None and model.size_axis == TOKEN_AXIS:
        largest = min(largest, tokens)
    parts = (largest // divisor // SIZE_STEP * SIZE_STEP for divisor in (4, 2))
    return (*sorted({part for part in parts if 0 < part < largest}), largest)


def measure_model(
    model: ServedModel, tokens: int | None = None, *, on_step: Callable[[str], None] = lambda step: None
) -> ModelMeasurement:
    """Load a model, run small batches of each size, and note the memory.

    Args:
        model: A model of the deployment.
        tokens: The largest number of tokens of a row; None for the model's own.
        on_step: Is told what is measured now.

    Raises:
        MeasurementError: A process ends without a result.
    """
    found: ModelMeasurement | None = None
    for size in sizes_of(model, tokens):
        on_step(model.name if size is None else f"{model.name}, {size} {model.size_axis}")
        result, log = _run_probe(model, size)
        part = summarize(model, size, result, log)
        found = part if found is None else replace(part, sizes=(*found.sizes, *part.sizes))
    assert found is not None
    return found


def summarize(model: ServedModel, size: int | None, result: Mapping[str, Any], log: str) -> ModelMeasurement:
    """Turn a probe's readings into a measurement.

    Args:
        model: The model that was measured.
        size: How large each row was, on the model's `size_axis`; None where all rows are equal.
        result: What `lychee_loadtest.memory.probe.probe` returns.
        log: What ONNX Runtime wrote while the model was loaded and ran.
    """
    readings, batches = result["readings"], result["batches"]
    on_gpu = readings["loaded"]["device_bytes"] > 0
    now, peak = ("device_bytes", "device_bytes") if on_gpu else ("rss_bytes", "peak_bytes")
    last = batches[-1] if batches else readings["loaded"]
    row = SizeRun(
        size=size,
        row_bytes=result["row_bytes"],
        rows_per_run=result["rows_per_run"],
        runs=tuple(BatchRun(entry["rows"], entry[peak]) for entry in batches),
        arena_bytes=_arena_bytes(log),
    )
    return ModelMeasurement(
        model=model.name,
        instances=model.instances,
        max_batch_size=model.max_batch_size,
        reads_images=model.reads_images,
        file_bytes=model.file_bytes,
        provider=result["execution"]["provider"],
        precision=result["execution"]["precision"],
        size_axis=model.size_axis,
        on_gpu=on_gpu,
        framework_bytes=readings["empty"][now],
        shared_bytes=0 if on_gpu else readings["empty"]["file_bytes"],
        loaded_bytes=readings["loaded"][now],
        load_peak_bytes=readings["loaded"][peak],
        sizes=(row,) if batches else (),
        heap_used_bytes=result["heap_used_bytes"],
        heap_resident_bytes=last["rss_bytes"] - last["file_bytes"],
    )


def _run_probe(model: ServedModel, size: int | None) -> tuple[dict[str, Any], str]:
    share = 1.0 if size is None or model.size_axis is None else size / model.axes[model.size_axis]
    axes = {name: max(1, int(limit * share) // 4 * 4) for name, limit in model.axes.items()}
    if size is not None and model.size_axis is not None:
        axes[model.size_axis] = size
    task = {
        "backend": str(find_backend_model()),
        "path": str(model.path),
        "config": dict(model.config),
        "gpu": model.wants_gpu,
        "axes": axes,
        "batches": [rows for rows in MEASURED_BATCHES if rows <= max(1, model.max_batch_size)],
    }
    try:
        done = subprocess.run(
            _COMMAND,
            input=json.dumps(task),
            env={**os.environ, "LYCHEE_CACHE_DIR": str(defaults.cache_dir())},
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise MeasurementError(
            f"Measuring {model.name} took more than {PROBE_TIMEOUT_S} s for rows of size {size}; expected to load it "
            "and run small batches by then. Try smaller --tokens, or a machine that does less besides."
        ) from error
    _, _, log = done.stderr.partition("loading\n")
    if done.returncode != 0:
        raise MeasurementError(_describe_failure(model, done.returncode, done.stderr))
    return json.loads(done.stdout), log


def _describe_failure(model: ServedModel, code: int, log: str) -> str:
    if code < 0:
        return (
            f"The process that measured {model.name} was ended by signal {-code}; expected it to load "
            f"{model.file_bytes / 1e9:.2f} GB and run small batches. Signal 9: memory ran out; measure on the machine "
            "that is to serve it, or with smaller --tokens."
        )
    lines = list(_error_lines(log)) or ["no message"]
    return f"{model.name} could not be measured: {lines[-1]}. Does `lychee load` start it?"


def _error_lines(log: str) -> Iterator[str]:
    """Yield the lines that ONNX Runtime did not log."""
    return (line.strip().removesuffix(".") for line in log.splitlines() if line.strip() and "[I:onnx" not in line)


def _arena_bytes(log: str) -> int:
    """Return what the arena has reserved for tensors: all, without the weights that it holds."""
    totals = _ARENA_TOTAL.findall(log)
    weights = sum(map(int, _ARENA_WEIGHTS.findall(log)))
    return max(0, int(totals[-1]) - weights) if totals else 0
