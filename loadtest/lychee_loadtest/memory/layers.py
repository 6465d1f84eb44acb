"""The four layers of a model's memory, from its measurements, for any batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lychee_loadtest.memory.line import Line, fit_line

__all__ = ["LAYERS", "BatchRun", "Layers", "ModelMeasurement", "Prediction", "SizeRun", "predict", "repeat_error"]

LAYERS: Final = ("weights", "attention", "temporary", "framework")
REPEAT_SHARE: Final = 0.02  # two measurements of the same thing differ by that much of a process, or by
REPEAT_BYTES: Final = 4_000_000  # this: allocators round up
EXTRAPOLATION_SHARE: Final = 0.3
"""Growth beyond the measured batches is off by at most that share of it: runtimes do not grow quite linearly. Measured:
27 % for lychee-mini's vision encoder on OpenVINO from 8 to 32 rows, 1 % and less on the plain CPU provider.
The runs are in docs/how-to/memory.md."""
COPIES_OF_INPUTS: Final = 2  # as requests, and merged into one batch


@dataclass(frozen=True)
class Layers:
    """Bytes of one process, or of several.

    Attributes:
        weights: The model, as the runtime lays it out, compiled kernels included.
        attention: What grows with the batch and with the square of the sequence: scores of tokens against tokens.
        temporary: The other tensors of a running batch.
        framework: Python, the runtime and its libraries, before any model.
    """

    weights: float = 0.0
    attention: float = 0.0
    temporary: float = 0.0
    framework: float = 0.0

    @property
    def total(self) -> float:
        """Sum of the four."""
        return self.weights + self.attention + self.temporary + self.framework

    def __add__(self, other: Layers) -> Layers:
        """Add layer by layer."""
        return Layers(*(getattr(self, name) + getattr(other, name) for name in LAYERS))

    def scaled(self, factor: float) -> Layers:
        """Multiply every layer."""
        return Layers(*(getattr(self, name) * factor for name in LAYERS))


@dataclass(frozen=True)
class BatchRun:
    """The most memory of the process while it ran a batch of so many rows."""

    rows: int
    peak_bytes: int


@dataclass(frozen=True)
class SizeRun:
    """Batches of rows of one size.

    Attributes:
        size: How many tokens, or patches, a row has; None where all rows are equal.
        row_bytes: The size of one row's inputs.
        rows_per_run: After how many rows the backend slices a batch; None: never.
        runs: The batches that ran, ascending in rows: a single row, and those that the backend does not slice.
        arena_bytes: What ONNX Runtime's arena had reserved for tensors in the end.
    """

    size: int | None
    row_bytes: int
    rows_per_run: int | None
    runs: tuple[BatchRun, ...]
    arena_bytes: int

    def line(self, floor_bytes: float) -> Line:
        """Fit the growth above a floor to the number of rows."""
        return fit_line([run.rows for run in self.runs], [run.peak_bytes - floor_bytes for run in self.runs])


@dataclass(frozen=True)
class ModelMeasurement:
    """One process that serves a model, in bytes of main memory, or of the GPU if it runs there.

    Attributes:
        model: The name of the model.
        instances: How many such processes there are.
        max_batch_size: The most rows in one execution; 0 without a batch axis.
        reads_images: Whether pixels are among its inputs.
        file_bytes: The size of its files.
        provider: The execution provider that runs it.
        precision: The precision in which it computes.
        size_axis: What the sizes count; None where all rows are equal.
        on_gpu: Whether the memory of the GPU was measured, and not main memory.
        framework_bytes: What the process held with a model of no size.
        shared_bytes: How much of `framework_bytes` is in libraries that all such processes share.
        loaded_bytes: What it held with the model, before the first run.
        load_peak_bytes: The most that it held while the model was loaded.
        sizes: One entry for each size of a row, ascending; the last one is what was asked for. Empty without inputs.
        heap_used_bytes: What malloc had handed out in the end; None if it does not tell.
        heap_resident_bytes: What was resident in the end without a file behind it.
    """

    model: str
    instances: int
    max_batch_size: int
    reads_images: bool
    file_bytes: int
    provider: str
    precision: str
    size_axis: str | None
    on_gpu: bool
    framework_bytes: int
    shared_bytes: int
    loaded_bytes: int
    load_peak_bytes: int
    sizes: tuple[SizeRun, ...]
    heap_used_bytes: int | None
    heap_resident_bytes: int


@dataclass(frozen=True)
class Prediction:
    """What one process of a model takes when it has run a batch.

    Attributes:
        layers: The four layers, in bytes.
        error_bytes: Half the width of the 95 % interval.
        rows: The rows in one execution: what was asked for, or the model's largest batch.
        rows_per_run: How many rows really run at once.
        extrapolated: Whether more rows run at once than were measured.
    """

    layers: Layers
    error_bytes: float
    rows: int
    rows_per_run: int
    extrapolated: bool


def predict(model: ModelMeasurement, batch: int, size: SizeRun | None = None) -> Prediction:
    """Predict the memory of one process of a model: as it was measured, or else by the line through the measurements.

    Args:
        model: The model's measurement.
        batch: How many rows the largest batch has; 0 for a model that is loaded and never runs.
        size: One of the measured sizes; None for the largest.
    """
    framework = float(model.framework_bytes)
    loaded = float(model.loaded_bytes)
    if not model.sizes or batch == 0:
        layers = Layers(weights=max(0.0, loaded - framework), framework=framework)
        return Prediction(layers, repeat_error(layers.total), 0, 0, extrapolated=False)
    chosen = size or model.sizes[-1]
    rows = min(batch, model.max_batch_size) if model.max_batch_size else 1
    at_once = min(rows, chosen.rows_per_run or rows)
    line = chosen.line(loaded)
    fixed = max(0.0, line.intercept)
    measured = next((run.peak_bytes - loaded for run in chosen.runs if run.rows == at_once), None)
    growth = max(0.0, (line.at(at_once) if measured is None else measured) - fixed)
    attention = min(growth, _attention_per_row(model, chosen) * at_once)
    waiting = (rows - at_once) * chosen.row_bytes * COPIES_OF_INPUTS
    layers = Layers(
        weights=max(0.0, loaded - framework) + fixed,
        attention=attention,
        temporary=growth - attention + waiting,
        framework=framework,
    )
    error = max(0.0 if measured is not None else _line_error(line, chosen, at_once), repeat_error(layers.total))
    return Prediction(layers, error, rows, at_once, extrapolated=at_once > chosen.runs[-1].rows)


def repeat_error(total_bytes: float) -> float:
    """Return by how much two measurements of the same process may differ."""
    return max(REPEAT_BYTES, REPEAT_SHARE * total_bytes)


def _line_error(line: Line, chosen: SizeRun, rows: int) -> float:
    beyond = max(0, rows - chosen.runs[-1].rows)
    return math.hypot(line.error_at(rows), EXTRAPOLATION_SHARE * max(0.0, line.slope) * beyond)


def _attention_per_row(model: ModelMeasurement, chosen: SizeRun) -> float:
    """Return the part of a row's growth that is quadratic in its size.

    The growth per row is fitted to a * size + c * size^2 over all sizes; a and c cannot be negative. With one size
    there is nothing to tell them apart, and all of it is temporary.
    """
    points = [(run.size, run.line(model.loaded_bytes).slope) for run in model.sizes if run.size and len(run.runs) > 1]
    if len(points) < 2 or chosen.size is None:
        return 0.0
    return _quadratic_part([size for size, _ in points], [slope for _, slope in points]) * chosen.size**2


def _quadratic_part(sizes: Sequence[int], slopes: Sequence[float]) -> float:
    """Return c of slope / size = a + c * size."""
    line = fit_line(sizes, [slope / size for size, slope in zip(sizes, slopes, strict=True)])
    return min(line.slope, max(slopes) / max(sizes) ** 2) if line.slope > 0 else 0.0
