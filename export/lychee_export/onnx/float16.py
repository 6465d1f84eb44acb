"""Half floats: whether a model's numbers fit, before its weights are rounded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from lychee_export.errors import ValidationError
from lychee_export.families import Piece

__all__ = ["MAX_FLOAT16", "check_range"]

MAX_FLOAT16 = 65504.0
"""Largest finite half float."""


@contextmanager
def check_range(pieces: Iterable[Piece]) -> Iterator[None]:
    """Look for weights and activations that half floats cannot hold, while the encoders run in float32.

    What is looked at are the outputs of every module within.

    Raises:
        ValidationError: A value is too large; the message names the first such layer in the order of execution.
    """
    handles = []
    for piece in pieces:
        if not piece.signature.encoder:
            continue
        for name, weight in piece.module.named_parameters():
            _check(f"{piece.signature.name}: the weight {name}", weight)
        for name, module in piece.module.named_modules():
            label = f"{piece.signature.name}: the output of {name or 'the whole module'} ({type(module).__name__})"
            handles.append(module.register_forward_hook(partial(_check_outputs, label)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _check_outputs(label: str, _module: nn.Module, _inputs: Any, outputs: Any) -> None:
    for value in outputs if isinstance(outputs, tuple | list) else (outputs,):
        if isinstance(value, Tensor) and value.is_floating_point():
            _check(label, value)


def _check(name: str, value: Tensor) -> None:
    largest = float(value.detach().abs().max()) if value.numel() else 0.0
    if not largest <= MAX_FLOAT16:
        raise ValidationError(
            f"{name} reaches {largest:.4g}, a half float holds at most {MAX_FLOAT16:.0f}. Export this checkpoint with "
            "--precision fp32, w8 or w4"
        )
