"""What kernels of half floats compute, on a CPU: every result rounded to its type, and looked at."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from lychee_export.errors import ValidationError
from lychee_export.onnx.half import HalfModule, is_within, scaled_queries

__all__ = ["LARGEST_SCORES", "ROOM", "half_kernels"]

ROOM = 2.0
"""How many times the largest value that was seen has to fit, for other inputs have larger ones."""

LARGEST_SCORES = {torch.float16: 256.0, torch.bfloat16: 64.0}
"""How large attention scores may be by type: where rounding begins to move one by 1/8 or 1/4, and what it weighs by as
large a share."""

_aten = torch.ops.aten
_PRODUCTS = frozenset({_aten.mm, _aten.addmm, _aten.bmm, _aten.baddbmm, _aten.convolution})
"""Where a GPU adds up in float32 and rounds the sum. A CPU without such instructions takes a hundred times as long for
these as in float32."""
_NEVER_LARGER = frozenset({_aten.where, _aten.masked_fill, _aten.full, _aten.scalar_tensor})
"""They only place values, such as those of masks."""


@contextmanager
def half_kernels(name: str, module: nn.Module, dtype: torch.dtype, kept: dict[str, str]) -> Iterator[None]:
    """Compute a module in half floats for a while, as a GPU does.

    A part in which a result does not fit gets its float32 weights back and computes again.

    Args:
        name: The module's name, for messages.
        module: The module, in float32, and again when this ends.
        dtype: The type of half floats.
        kept: The reasons of the parts that stay in float32, by name; those that are found are added.

    Raises:
        ValidationError: No part can be kept that would help.
    """
    half = HalfModule(module, dtype, kept)
    watch = _Watch(name, dtype, half, kept)
    for part_name, part in half.parts.items():
        half.wrap(part, functools.partial(watch.call, part_name, part.forward))
    try:
        watch.check_weights()
        with scaled_queries(module):
            yield
    finally:
        half.restore()


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Round products as GPUs do, and find the parts whose results do not fit.

    Args:
        name: The module's name.
        dtype: The type of half floats.
        half: The module.
        kept: The reasons of the parts that stay in float32, by name.
    """

    def __init__(self, name: str, dtype: torch.dtype, half: HalfModule, kept: dict[str, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._name = name
        self._dtype = dtype
        self._half = half
        self._kept = kept
        self._found: dict[str, str] = {}
        self._stack: list[str] = []
        self._attention: set[str] = set()
        """Parts that multiply two activations."""

    def check_weights(self) -> None:
        """Keep parts with weights that are too large."""
        for name, part in self._half.parts.items():
            for weight_name, weight in part.named_parameters(recurse=False):
                if weight.dtype == self._dtype and not bool(weight.isfinite().all()):
                    self._keep(name, f"its {weight_name} does not fit")

    def call(self, name: str, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Compute a part, and once more in float32 if something within it did not fit."""
        outermost = not self._stack
        self._stack.append(name)
        try:
            with self if outermost else nullcontext():
                outputs = forward(*args, **kwargs)
        finally:
            self._stack.pop()
        reason = self._found.pop(name, None)
        if reason is None:
            return outputs
        for other in [other for other in self._found if is_within(other, name)]:
            del self._found[other]
        self._keep(name, reason)
        return self.call(name, forward, *args, **kwargs)

    def __torch_dispatch__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.overloadpacket in _PRODUCTS:
            outputs = self._multiply(function, args, kwargs or {})
        else:
            outputs = function(*args, **(kwargs or {}))
        if not function.is_view and function.overloadpacket not in _NEVER_LARGER:
            for value in tree_leaves(outputs):
                if isinstance(value, Tensor) and value.numel():
                    self._look(function, value, args)
        return outputs

    def _multiply(self, function: Any, args: Any, kwargs: Any) -> Any:
        types = {value.dtype for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)}
        if function.overloadpacket in {_aten.bmm, _aten.baddbmm}:
            self._attention.add(self._stack[-1])
            if len(types) > 1:  # a part of it is kept
                name = self._stack[-1]
                self._find(next(reason for other, reason in self._kept.items() if is_within(other, name)))
        if types.isdisjoint(LARGEST_SCORES):
            return function(*args, **kwargs)
        wide_args, wide_kwargs = tree_map(_widen, (args, kwargs))
        return function(*wide_args, **wide_kwargs).to(self._dtype)

    def _look(self, function: Any, value: Tensor, args: Any) -> None:
        packet = function.overloadpacket
        if packet is _aten._softmax and not self._is_kept(self._stack[-1]):
            largest = float(args[0].amax(args[1]).abs().max())
            if not largest <= LARGEST_SCORES[self._dtype]:
                self._find(f"attention scores reach {largest:.4g}")
        if value.dtype != self._dtype:
            return
        lowest, highest = (float(bound) for bound in value.aminmax())
        limit = torch.finfo(self._dtype).max
        masked = packet is _aten.add and self._stack[-1] in self._attention  # scores were looked at before
        largest = highest if masked or lowest == -limit else max(highest, -lowest)
        if not largest <= limit / ROOM:
            self._find(f"{packet.__name__} reaches {largest:.4g}")

    def _find(self, reason: str) -> None:
        self._found.setdefault(self._stack[-1], reason)

    def _is_kept(self, name: str) -> bool:
        return any(is_within(name, other) for other in self._kept)

    def _keep(self, name: str, reason: str) -> None:
        if not name or self._is_kept(name):
            other = "bf16 or " if self._dtype == torch.float16 else ""
            raise ValidationError(
                f"{self._name}: {reason}{f' in {name}' if name else ''}; a half float holds at most "
                f"{torch.finfo(self._dtype).max:.5g}, and what was seen has to fit {ROOM:g} times. Export this "
                f"checkpoint with --precision {other}fp32"
            )
        self._half.keep(name)
        for other in [other for other in self._kept if is_within(other, name)]:
            del self._kept[other]
        self._kept[name] = reason


def _widen(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype in LARGEST_SCORES else value
