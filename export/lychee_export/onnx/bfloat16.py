"""Operators in bfloat16: those that ONNX Runtime's GPU kernels lack compute in float32."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper, shape_inference

__all__ = ["KERNELS", "widen_operators"]

KERNELS = frozenset(
    {
        *("Add", "Div", "Gemm", "LayerNormalization", "MatMul", "Mul", "Neg", "Softmax", "Sub"),
        *("Cast", "Concat", "Constant", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity"),
        *("Reshape", "Shape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"),
    }
)
"""What ONNX Runtime's CUDA provider computes in bfloat16. Version 1.24.4 lacks Sigmoid, Exp and Sqrt, older ones Erf
and Where, all of them Pad, Clip and reductions; and in opset 18 there is no Conv of it at all.

Source: https://github.com/microsoft/onnxruntime/blob/main/docs/OperatorKernels.md, issues 19502 and 27873 there.
"""


def widen_operators(model: onnx.ModelProto) -> None:
    """Let every other operator read float32 and give bfloat16, with casts: the same numbers, rounded once."""
    graph = model.graph
    inferred = shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *graph.input, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        narrow: list[onnx.NodeProto] = []
        if node.op_type not in KERNELS:
            for place, name in enumerate(node.input):
                if types.get(name) == TensorProto.BFLOAT16:
                    wide = f"{node.output[0]}_input_{place}"
                    nodes.append(helper.make_node("Cast", [name], [wide], to=TensorProto.FLOAT))
                    node.input[place] = wide
            for place, name in enumerate(node.output):
                if types.get(name) == TensorProto.BFLOAT16:
                    wide = f"{name}_float32"
                    narrow.append(helper.make_node("Cast", [wide], [name], to=TensorProto.BFLOAT16))
                    node.output[place] = wide
        nodes += [node, *narrow]
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
