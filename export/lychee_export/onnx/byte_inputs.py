"""Graph inputs of uint8: what reads them, for the runtimes that take them only into a cast."""

from __future__ import annotations

import onnx
from onnx import TensorProto

__all__ = ["byte_inputs", "take_shapes_after_casts"]


def byte_inputs(model: onnx.ModelProto) -> list[str]:
    """Return the names of the graph's inputs that hold uint8."""
    return [value.name for value in model.graph.input if value.type.tensor_type.elem_type == TensorProto.UINT8]


def take_shapes_after_casts(model: onnx.ModelProto) -> None:
    """Let the graph read a uint8 input's shape from its cast, where there is one: TensorRT has no Shape of uint8.

    torch asks the input for the batch size before it casts. Nothing else changes, on no runtime.

    Source: https://docs.nvidia.com/deeplearning/tensorrt/archives/tensorrt-1070/operators/docs/Shape.html
    """
    nodes = model.graph.node
    for name in byte_inputs(model):
        cast = next((node for node in nodes if node.op_type == "Cast" and node.input[0] == name), None)
        if cast is None:
            continue
        moved = onnx.NodeProto()
        moved.CopyFrom(cast)
        nodes.remove(cast)
        nodes.insert(0, moved)  # it reads an input of the graph, so it can come first
        for node in nodes:
            if node.op_type == "Shape" and node.input[0] == name:
                node.input[0] = moved.output[0]
