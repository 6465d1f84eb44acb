"""An ONNX model on disk: one file, or a small one beside a file of weights."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir
from lychee_client.repository import EXTERNAL_DATA_SUFFIX, MODEL_FILENAME
from onnx_ir import external_data

__all__ = [
    "DATA_FILENAME",
    "EXTERNAL_DATA_BYTES",
    "model_files",
    "read_graph",
    "weight_bytes",
    "write_model",
]

DATA_FILENAME = f"{MODEL_FILENAME}{EXTERNAL_DATA_SUFFIX}"
EXTERNAL_DATA_BYTES = 1 << 26
"""Weights beyond this get a file of their own. ONNX allows 2 GB in one file; but writing one copies the weights twice
in memory, and a server holds those of one file as long as it serves, beside the copy in which it computes; a file of
their own is mapped, and given back."""

_SMALLEST_EXTERNAL_BYTES = 1024
"""Smaller tensors stay in the graph: shape inference wants to see them."""


def write_model(model: onnx_ir.Model, path: Path, external_data_bytes: int = EXTERNAL_DATA_BYTES) -> None:
    """Write a model, its weights in ``model.onnx.data`` beside it if they are many.

    The weights are written one by one, without a second copy of all in memory. Those that the model reads from a file
    elsewhere come along.
    """
    if weight_bytes(model) > external_data_bytes:
        onnx_ir.save(model, path, external_data=DATA_FILENAME, size_threshold_bytes=_SMALLEST_EXTERNAL_BYTES)
    else:
        onnx_ir.save(external_data.load_to_model(model), path)


def weight_bytes(model: onnx_ir.Model) -> int:
    """Return the size of all constants of a graph."""
    values = (value.const_value for value in model.graph.initializers.values())
    return sum(value.nbytes for value in values if value is not None)


def read_graph(path: Path) -> onnx.ModelProto:
    """Read a model; weights in a file of their own stay there."""
    return onnx.load(path, load_external_data=False)


def model_files(folder: Path) -> tuple[Path, ...]:
    """List the files of the model in a folder."""
    return tuple(path for name in (MODEL_FILENAME, DATA_FILENAME) if (path := folder / name).is_file())
