"""The operators of a graph that multiply activations with constant weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch.nn import functional

__all__ = ["Array", "Product", "find_products"]

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Product:
    """One matrix product or convolution.

    Args:
        node: The node of the graph.
        weight: The weight, float32, as the file holds it.
        output_axis: The axis of the weight whose every index gets a scale of its own.
        input_axis: The axis of the weight that meets the activations' channels. None where smoothing is not defined.
    """

    node: onnx.NodeProto
    weight: Array
    output_axis: int
    input_axis: int | None

    @property
    def name(self) -> str:
        """The name of the node."""
        return str(self.node.name)

    @property
    def channel_axis(self) -> int:
        """The axis of the activations that holds their channels."""
        return 1 if self.node.op_type == "Conv" else -1

    def compute(self, activations: Array, weight: Array) -> Array:
        """Multiply, without the bias.

        Args:
            activations: The activations: float32, (rows, channels), or (images, channels, height, width).
            weight: The weight to multiply with: float32, of the shape of this product's.
        """
        if self.node.op_type != "Conv":
            return np.asarray(activations @ (weight.T if self.output_axis == 0 else weight), np.float32)
        attributes: dict[str, Any] = {item.name: onnx.helper.get_attribute_value(item) for item in self.node.attribute}
        top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
        padded = functional.pad(torch.from_numpy(activations), (left, right, top, bottom))
        output = functional.conv2d(
            padded,
            torch.from_numpy(weight),
            stride=tuple(attributes.get("strides", (1, 1))),
            dilation=tuple(attributes.get("dilations", (1, 1))),
            groups=attributes.get("group", 1),
        )
        return np.asarray(output.numpy(), np.float32)


def find_products(model: onnx.ModelProto, folder: Path) -> Iterator[Product]:
    """Yield the products whose second factor is constant, in the order of execution.

    Args:
        model: The ONNX model; its weights may lie in a file of their own.
        folder: The folder that holds that file.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        stored = constants.get(node.input[1]) if len(node.input) > 1 else None
        if stored is None or stored.data_type != onnx.TensorProto.FLOAT or node.input[0] in constants:
            continue
        attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        axes: tuple[int, int | None] | None = None
        if node.op_type == "MatMul" and len(stored.dims) == 2:
            axes = (1, 0)
        elif node.op_type == "Gemm" and not attributes.get("transA") and attributes.get("alpha", 1.0) == 1.0:
            axes = (0, 1) if attributes.get("transB") else (1, 0)
        elif node.op_type == "Conv" and len(stored.dims) == 4 and not attributes.get("auto_pad", b"").strip(b"NOTSET"):
            axes = (0, None)
        if axes is not None:
            yield Product(node, numpy_helper.to_array(stored, str(folder)).astype(np.float32), *axes)
