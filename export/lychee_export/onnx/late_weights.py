"""Weights that a graph reads from the checkpoint when it is written, one at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import onnx_ir
from onnx_ir.tensor_adapters import TorchTensor, from_torch_dtype

from lychee_export.checkpoint.stored_weights import StoredWeight

__all__ = ["read_weights_late"]


def read_weights_late(model: onnx_ir.Model, weights: Mapping[int, StoredWeight]) -> None:
    """Put stored weights into the places of their stand-ins, transposed where the graph does nothing else with them.

    The optimizer would transpose them too, but all in memory.

    Args:
        model: The graph as torch exported it.
        weights: The weights by the addresses of their stand-ins.
    """
    for value in list(model.graph.initializers.values()):
        raw: Any = getattr(value.const_value, "raw", None)
        weight = weights.get(raw.data_ptr()) if hasattr(raw, "data_ptr") else None
        if weight is None:
            continue
        order = list(range(weight.ndim))
        uses = list(value.uses())
        if len(uses) == 1 and uses[0].node.op_type == "Transpose":
            transpose = uses[0].node
            order = list(transpose.attributes.get_ints("perm", order[::-1]))
            transpose.outputs[0].replace_all_uses_with(value, replace_graph_outputs=True)
            model.graph.remove(transpose, safe=True)
        shape = onnx_ir.Shape([weight.shape[axis] for axis in order])
        value.shape = shape
        value.const_value = onnx_ir.LazyTensor(
            partial(_read, weight, order), from_torch_dtype(weight.dtype), shape, name=value.name
        )


def _read(weight: StoredWeight, order: Sequence[int]) -> TorchTensor:
    return TorchTensor(weight.read().permute(*order).contiguous())
