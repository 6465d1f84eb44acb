"""Encoders in half floats, and the parts of them that stay in float32.

A part that does not fit keeps float32 weights and computes in float32. Its output stays in float32 until the next
matrix product with half weights, so that a sum of large values (the residual stream) never has to fit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_map
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from lychee_export.onnx.padded_keys import switch_attention
from lychee_export.onnx.quantization import Precision

__all__ = ["HALF_TYPES", "HalfModule", "is_within", "scaled_queries"]

HALF_TYPES: Mapping[Precision, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}
"""The precisions whose weights and activations take two bytes."""

_SCALED_QUERIES = "lychee_scaled_queries"


class HalfModule:
    """A module whose weights are rounded in place, but for those of the parts that are kept.

    Args:
        module: The module, in float32.
        dtype: The type of half floats.
        kept: The names of parts that stay in float32 with all that they hold.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype, kept: Iterable[str] = ()) -> None:
        self.parts = dict(module.named_modules())
        self._originals: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self._wrapped: list[nn.Module] = []
        kept = tuple(kept)
        for name, part in self.parts.items():
            if not any(is_within(name, other) for other in kept):
                self._originals[name] = [
                    (tensor, tensor.data)
                    for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False))
                    if tensor.dtype == torch.float32
                ]
                for tensor, original in self._originals[name]:
                    tensor.data = original.to(dtype)
            if isinstance(part, nn.LayerNorm):
                self.wrap(part, functools.partial(_normalize, part))
            elif _multiplies(part):
                self.wrap(part, functools.partial(_multiply, part, part.forward))

    def wrap(self, part: nn.Module, forward: Callable[..., Any]) -> None:
        """Let a part compute through a function, until `restore`."""
        part.forward = functools.update_wrapper(forward, part.forward)
        self._wrapped.append(part)

    def keep(self, name: str) -> None:
        """Give a part its float32 weights back, with all that it holds."""
        for other in [other for other in self._originals if is_within(other, name)]:
            self._give_back(other)

    def restore(self) -> None:
        """Give every part its weights and its own way to compute back."""
        for name in list(self._originals):
            self._give_back(name)
        for part in self._wrapped:
            part.__dict__.pop("forward", None)

    def _give_back(self, name: str) -> None:
        for tensor, original in self._originals.pop(name):
            tensor.data = original


def is_within(name: str, other: str) -> bool:
    """Tell whether a part of a module is another one or lies in it."""
    return name == other or name.startswith(f"{other}.")


def scaled_queries(module: nn.Module) -> AbstractContextManager[None]:
    """Let the attention layers of transformers within a module scale queries, not scores, for a while.

    Where eager attention overflows half floats, a product of queries and keys is too large before it is scaled.
    """
    return switch_attention(module, _SCALED_QUERIES)


def _multiplies(part: nn.Module) -> bool:
    """Tell whether a part multiplies its inputs by a matrix of its own."""
    return isinstance(part, nn.MultiheadAttention) or (_own_matrix(part) is not None and type(part) is not nn.Embedding)


def _own_matrix(part: nn.Module) -> Tensor | None:
    weight = getattr(part, "in_proj_weight", None)
    weight = getattr(part, "weight", None) if weight is None else weight
    return weight if isinstance(weight, Tensor) and weight.ndim > 1 else None


def _multiply(part: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Compute a part in the type of its weights, whatever comes in."""
    dtype = cast(Tensor, _own_matrix(part)).dtype

    def convert(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    return forward(*tree_map(convert, args), **tree_map(convert, kwargs))


def _normalize(part: nn.LayerNorm, hidden: Tensor) -> Tensor:
    """Normalize in float32 what comes in float32, to the type of the weights."""
    weight, bias, shape = part.weight, part.bias, part.normalized_shape
    if weight is None or weight.dtype == hidden.dtype:
        return functional.layer_norm(hidden, shape, weight, bias, part.eps)
    wide_bias = None if bias is None else bias.float()
    return functional.layer_norm(hidden.float(), shape, weight.float(), wide_bias, part.eps).to(weight.dtype)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend as transformers' eager implementation does, with scaled queries.

    Args:
        module: The attention layer.
        query: The queries, (batch_size, heads, queries, head_dim).
        key: The keys, (batch_size, heads or a divisor of it, keys, head_dim).
        value: The values, like the keys.
        attention_mask: The mask that is added to the scores, (batch_size, 1, queries, keys), or None.
        scaling: The factor that the scores are to have. None stands for head_dim ** -0.5.

    Returns:
        (batch_size, queries, heads, head_dim).
    """
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (part.repeat_interleave(groups, 1) for part in (key, value))
    scores = query * (query.shape[-1] ** -0.5 if scaling is None else scaling) @ key.transpose(2, 3)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = torch.softmax(scores, -1, dtype=torch.float32).to(value.dtype)
    return (weights @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register(_SCALED_QUERIES, _attend)
AttentionMaskInterface.register(_SCALED_QUERIES, eager_mask)
