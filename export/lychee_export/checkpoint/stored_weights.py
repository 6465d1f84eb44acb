"""Weights that stay as the checkpoint stores them, in its mapped files, and compute in float32.

A checkpoint of 16-bit floats would take twice its size in float32. Here each weight is cast when an operator takes it
and forgotten afterwards, so that one at a time exists in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

__all__ = ["StoredWeight", "read_as_float32", "stand_ins"]

_aten = torch.ops.aten
_ALIASES = frozenset({_aten.alias.default, _aten.clone.default, _aten.detach.default})
_PICKS = frozenset({_aten.embedding.default, _aten.select.int})
"""Operators that take a few rows: these are cast, the rest is not."""


class StoredWeight(Tensor):
    """A tensor of one dtype that is kept in another; it cannot be changed in place.

    Args:
        stored: The values as they are kept.
        dtype: The floating-point dtype as which operators read them.
    """

    stored: Tensor

    @staticmethod
    def __new__(cls, stored: Tensor, dtype: torch.dtype) -> StoredWeight:
        make: Callable[..., StoredWeight] = torch.Tensor._make_wrapper_subclass
        weight = make(cls, stored.shape, strides=stored.stride(), dtype=dtype, device=stored.device)
        weight.stored = stored
        return weight

    def read(self) -> Tensor:
        """Return a plain tensor of this one's dtype."""
        return self.stored.to(self.dtype)

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"StoredWeight({tuple(self.shape)}, {self.stored.dtype} read as {self.dtype})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        first = args[0] if args else None
        if isinstance(first, cls):
            if function in _ALIASES:
                return cls(first.stored, first.dtype)
            if function in _PICKS:
                return function(first.stored, *args[1:], **kwargs).to(first.dtype)
            if function is _aten._to_copy.default and kwargs.get("dtype", torch.int8).is_floating_point:
                return cls(first.stored, kwargs["dtype"])
        if function._schema.is_mutable:
            raise RuntimeError(f"{function} would change a weight of the checkpoint in place; change a copy")
        return function(*tree_map(_read, args), **tree_map(_read, kwargs))


def read_as_float32(model: nn.Module) -> None:
    """Let a model with weights of 16 bits compute in float32; weights that modules share stay shared."""
    changed: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is None or not weight.is_floating_point() or weight.dtype == torch.float32:
                continue
            if id(weight) not in changed:
                values = weight.detach()
                large = values.ndim > 1
                changed[id(weight)] = nn.Parameter(
                    StoredWeight(values, torch.float32) if large else values.float(), requires_grad=False
                )
            module._parameters[name] = changed[id(weight)]


@contextmanager
def stand_ins(module: nn.Module) -> Iterator[dict[int, StoredWeight]]:
    """Put plain tensors without content into the places of stored weights, for what looks at shapes alone.

    Yields:
        The weights by the addresses of their stand-ins, which take no memory as long as nobody writes into them.
    """
    parameters: list[tuple[nn.Module, str, Any]] = [
        (owner, name, weight) for owner in module.modules() for name, weight in owner._parameters.items()
    ]
    places = [place for place in parameters if isinstance(place[2], StoredWeight)]
    empty = {id(weight): torch.empty(weight.shape, dtype=weight.dtype) for _, _, weight in places}
    try:
        for owner, name, weight in places:
            owner._parameters[name] = nn.Parameter(empty[id(weight)], requires_grad=False)
        yield {empty[id(weight)].data_ptr(): weight for _, _, weight in places}
    finally:
        for owner, name, weight in places:
            owner._parameters[name] = weight


def _read(value: Any) -> Any:
    return value.read() if isinstance(value, StoredWeight) else value
