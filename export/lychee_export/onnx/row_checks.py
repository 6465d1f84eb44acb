"""Rows that a model cannot read answer NaN, and cost their batch nothing, whatever serves the file.

NVIDIA's C++ backend looks at no values: one id outside the vocabulary would fail all requests that Triton merged with
its own. So the graph itself computes such a row with values that it can read, and gives NaN in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from lychee_export.contract.signature import Axis, ModelSignature, TensorSpec

__all__ = ["CheckedRows"]

_ATTENTION_MASK = "attention_mask"
_LARGEST_MEAN = 6e4
"""Beyond it a row of floats has NaN or infinity. Half floats hold it, in which a runtime may compute this."""


class CheckedRows(nn.Module):
    """A model that gives NaN throughout the outputs of a row that it cannot read.

    These are rows with an integer below 0 or above its input's maximum, with an attention mask of zeros alone, or with
    a float that is NaN or infinite. Integers reach the model clamped, so that it finds a place for each. Inputs of one
    shape whose lengths differ, or are beyond the axis' maximum, fail: a request has one length, so that Triton merges
    it only with others of the same fault.

    Args:
        module: The model; its weights are shared, not copied.
        signature: The tensors of the model.
    """

    def __init__(self, module: nn.Module, signature: ModelSignature) -> None:
        super().__init__()
        self.module = module
        self.signature = signature

    def forward(self, *tensors: Tensor) -> Any:
        """Compute as the model does, from its inputs in order."""
        inputs = {spec.name: tensor for spec, tensor in zip(self.signature.inputs, tensors, strict=True)}
        readable: list[Tensor] = []  # bool, (batch_size, 1) each
        for specs in _of_one_shape(self.signature.inputs):
            values = torch.stack([inputs[spec.name] for spec in specs])  # (inputs, batch_size, ...)
            # No clamp of integers: OpenVINO gives 0 for all of them where it has no upper bound.
            known = values.maximum(torch.tensor(0)).minimum(_maxima(specs, values.shape[2:]))
            same = (known == values).flatten(2).to(torch.int64).amin((0, 2))  # (batch_size,)
            readable.append(same[:, None] > 0)
            inputs |= zip((spec.name for spec in specs), known.unbind(0), strict=True)
            if _ATTENTION_MASK in (spec.name for spec in specs):
                readable.append(inputs[_ATTENTION_MASK].amax(1, keepdim=True) > 0)
        floats = [inputs[spec.name] for spec in self.signature.inputs if spec.dtype == "float32"]
        if floats:
            means = [values.flatten(1).mean(1, keepdim=True) for values in floats]
            readable.append(reduce(torch.add, means).abs() <= _LARGEST_MEAN)  # NaN is not
        outputs = self.module(*inputs.values())
        if not readable:
            return outputs
        kept = reduce(torch.logical_and, readable)
        if isinstance(outputs, Tensor):
            return _keep(outputs, kept)
        return tuple(_keep(values, kept) for values in outputs)


def _of_one_shape(specs: Sequence[TensorSpec]) -> list[list[TensorSpec]]:
    """Return the inputs whose values have a maximum, those of one shape together."""
    groups: dict[tuple[int | Axis, ...], list[TensorSpec]] = {}
    for spec in specs:
        if spec.maximum is not None:
            groups.setdefault(spec.shape, []).append(spec)
    return list(groups.values())


def _maxima(specs: Sequence[TensorSpec], sizes: Sequence[int]) -> Tensor:
    """Return the inputs' largest values: int64, (inputs, 1, ...), as long as the inputs, or as the longest admitted."""
    shape = [size.maximum if isinstance(size, Axis) else size for size in specs[0].shape]
    maxima = torch.tensor([spec.maximum for spec in specs]).reshape(-1, *[1] * (len(shape) + 1))
    maxima = maxima.expand(-1, 1, *shape)
    for axis, size in enumerate(sizes, 2):
        maxima = maxima.narrow(axis, 0, size)
    return maxima


def _keep(values: Tensor, kept: Tensor) -> Tensor:
    """Give NaN for the rows that are not kept; bool, (batch_size, 1)."""
    return torch.where(kept[(..., *[None] * (values.ndim - 2))], values, torch.nan)
