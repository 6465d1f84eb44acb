"""What the machine can compute at most: its rate of matrix products, at the shapes of the model."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lychee_loadtest.execution import open_session

__all__ = ["Arithmetic", "measure_matrix_rate"]

_RUNS: Final = 12
_OPSET: Final = 18
_IR_VERSION: Final = 10
_SHAPES: Final = {"texts": (1024, 512), "photos": (200, 768)}
"""Rows and width of the activations: 32 texts of 32 tokens; 4 photos of 50 patches."""
_LAYERS: Final = 12
_EXPANSION: Final = 4
_PATCHES: Final = 50
_PATCH_VALUES: Final = 3 * 32 * 32


class Arithmetic:
    """How many floating-point operations CLIP ViT-B/32 needs; a multiply-add counts as two."""

    @staticmethod
    def of_photo() -> float:
        """Return the operations for one photo."""
        width = _SHAPES["photos"][1]
        patches = 2 * (_PATCHES - 1) * _PATCH_VALUES * width
        return patches + _tower(width, _PATCHES, attended=_PATCHES)

    @staticmethod
    def of_text(tokens: float) -> float:
        """Return the operations for a text of so many tokens, padding left out."""
        return _tower(_SHAPES["texts"][1], tokens, attended=tokens)


def _tower(width: int, tokens: float, attended: float) -> float:
    """Return a transformer's operations: four projections, the two matrices of the MLP, scores and their use."""
    matrices = 2 * tokens * width**2 * (4 + 2 * _EXPANSION)
    attention = 2 * 2 * tokens * attended * width
    return _LAYERS * (matrices + attention)


def measure_matrix_rate(kind: str, folder: Path, execution: str) -> float:
    """Return operations per second of the MLP's two products, on all cores.

    Args:
        kind: "texts" or "photos": whose shapes the products have.
        folder: The folder for the model file, whose weights are float32.
        execution: What executes the encoder whose ceiling this is; the products are executed alike.
    """
    rows, width = _SHAPES[kind]
    path = folder / f"matrix-{kind}.onnx"
    write_products(path, rows, width)
    session = open_session(path, execution)
    feed = {"x": np.random.default_rng(0).standard_normal((rows, width), np.float32)}
    session.run(None, feed)
    seconds = []
    for _ in range(_RUNS):
        started = time.perf_counter()
        session.run(None, feed)
        seconds.append(time.perf_counter() - started)
    return _LAYERS * 2 * 2 * rows * width * _EXPANSION * width / statistics.median(seconds)


def write_products(path: Path, rows: int, width: int) -> None:
    """Write a chain of matrix products, two for each layer of the model, each with weights of its own."""
    rng = np.random.default_rng(0)
    nodes, weights, value = [], [], "x"
    for number in range(2 * _LAYERS):
        shape = (width, _EXPANSION * width) if number % 2 == 0 else (_EXPANSION * width, width)
        matrix = rng.standard_normal(shape, np.float32) / np.float32(shape[0] ** 0.5)
        weights.append(numpy_helper.from_array(matrix, f"weight_{number}"))
        made = "y" if number == 2 * _LAYERS - 1 else f"value_{number}"
        nodes.append(helper.make_node("MatMul", [value, f"weight_{number}"], [made]))
        value = made
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, width])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    onnx.save(model, path)
