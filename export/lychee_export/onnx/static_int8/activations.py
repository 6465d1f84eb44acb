"""What flows into the products of a graph while it computes samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from lychee_export.contract.signature import Tensors
from lychee_export.onnx.model_file import read_graph
from lychee_export.onnx.static_int8.products import Array

__all__ = ["Activations", "record_activations"]

_MAX_ROWS = 1024
_MAX_IMAGES = 6
"""How much of one tensor is kept, to measure errors with."""
_ROWS_PER_SAMPLE = 12


@dataclass(frozen=True)
class Activations:
    """One tensor over all samples.

    Args:
        minimum: The smallest value of each channel, float32, (channels,).
        maximum: The largest value of each channel, float32, (channels,).
        kept: A part of the values: float32, (rows, channels), or (images, channels, height, width).
        pooled: Whether there is one row for each text or image, as after pooling.
    """

    minimum: Array
    maximum: Array
    kept: Array
    pooled: bool


def record_activations(
    path: Path, channel_axes: Mapping[str, int], samples: Iterable[Tensors], rng: np.random.Generator
) -> dict[str, Activations]:
    """Compute samples with a model and record tensors inside.

    Args:
        path: The float32 model.
        channel_axes: The axis of the channels, -1 or 1, by the tensors' names.
        samples: The inputs of the model; each is one batch.
        rng: The generator that chooses the rows that are kept.
    """
    names = list(channel_axes)
    session = _open(path, names)
    minima: dict[str, list[Array]] = {name: [] for name in names}
    maxima: dict[str, list[Array]] = {name: [] for name in names}
    kept: dict[str, list[Array]] = {name: [] for name in names}
    pooled = dict.fromkeys(names, True)
    for sample in samples:
        for name, value in zip(names, session.run(names, dict(sample)), strict=True):
            is_image = channel_axes[name] == 1
            rows = value if is_image else value.reshape(-1, value.shape[-1])
            pooled[name] &= not is_image and len(rows) == len(next(iter(sample.values())))
            axes = (0, 2, 3) if is_image else (0,)
            minima[name].append(rows.min(axes))
            maxima[name].append(rows.max(axes))
            if sum(map(len, kept[name])) < (_MAX_IMAGES if is_image else _MAX_ROWS):
                count = min(len(rows), 1 if is_image else _ROWS_PER_SAMPLE)
                kept[name].append(rows[np.sort(rng.choice(len(rows), count, replace=False))].copy())
    return {
        name: Activations(np.min(minima[name], 0), np.max(maxima[name], 0), np.concatenate(kept[name]), pooled[name])
        for name in names
    }


def _open(path: Path, names: Iterable[str]) -> onnxruntime.InferenceSession:
    """Open a model that gives inner tensors too; its weights may lie beside it."""
    model = read_graph(path)
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    observed = path.with_name(f"observed-{path.name}")
    observed.write_bytes(model.SerializeToString(deterministic=True))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(observed), options, providers=["CPUExecutionProvider"])
    finally:
        observed.unlink()
