"""How much memory the tensors of a served model take, computed from shapes before anything is exported."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lychee_export.contract.signature import ModelSignature, TensorSpec
from lychee_export.families import Piece

__all__ = ["LiveBytes", "activation_bytes", "rows_per_run"]

_DTYPES = {"float16": torch.float16, "float32": torch.float32, "int64": torch.int64, "uint8": torch.uint8}


def activation_bytes(
    piece: Piece, rows: int | None = None, dtype: torch.dtype = torch.float32, *, fused: bool = False
) -> int:
    """Return the most bytes that tensors other than weights hold at once while the largest run is computed.

    The module runs on shapes alone, so this costs no memory. ONNX Runtime fuses operators and reuses buffers, so it
    needs less; its arena keeps what it once took.

    Args:
        piece: The model to serve; its module may lie on the meta device.
        rows: How many rows run at once. None takes those of the largest run on a CPU.
        dtype: The type of the weights.
        fused: Whether attention is one fused operator, which keeps no scores of all tokens against all.
    """
    rows = rows_per_run(piece.signature) if rows is None else rows
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
        tensors = {**dict(piece.module.named_parameters()), **dict(piece.module.named_buffers())}
        weights = {
            name: torch.empty(tensor.shape, dtype=dtype if tensor.is_floating_point() else tensor.dtype)
            for name, tensor in tensors.items()
        }
        inputs = tuple(
            torch.empty((rows, *_largest_shape(spec)), dtype=_DTYPES[spec.dtype]) for spec in piece.signature.inputs
        )
        live = LiveBytes(weights.values(), scores=not fused)
        with live:
            functional_call(piece.module, weights, inputs)
    return live.peak


def rows_per_run(signature: ModelSignature) -> int:
    """Return how many rows of the largest size run at once: the backend slices a batch with too many elements."""
    if signature.max_run_elements is None:
        return signature.max_batch_size
    counted = [spec for spec in signature.inputs if signature.run_input in (None, spec.name)]
    largest = max(math.prod(_largest_shape(spec)) for spec in counted)
    return min(signature.max_batch_size, max(1, signature.max_run_elements // largest))


def _largest_shape(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else size.maximum for size in spec.shape)


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Count the bytes of the storages that are alive.

    Args:
        ignored: Tensors whose storages do not count, such as weights; views of them are no new memory.
        scores: Whether to count attention scores: (batch_size, heads, length, length).
    """

    def __init__(self, ignored: Iterable[Tensor], *, scores: bool = True) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._scores = scores
        self.peak = 0
        self._live = 0
        self._ignored = [tensor.untyped_storage() for tensor in ignored]  # held, so that their ids stay theirs
        self._known = {id(storage) for storage in self._ignored}

    def __torch_dispatch__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        try:
            if function is torch.ops.aten.nonzero.default:  # at most every place, such as of a mask without padding
                outputs = torch.empty((args[0].numel(), args[0].ndim), dtype=torch.int64)
            else:
                outputs = function(*args, **(kwargs or {}))
        except DataDependentOutputException:
            return False  # the module reads a value, such as whether a mask is all ones, to save work
        for value in tree_leaves(outputs):
            if isinstance(value, Tensor) and (self._scores or not _are_scores(value)):
                self._add(value.untyped_storage())
        return outputs

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = id(storage)
        if key in self._known:
            return
        self._known.add(key)
        self._live += storage.nbytes()
        self.peak = max(self.peak, self._live)
        weakref.finalize(storage, self._remove, key, storage.nbytes())

    def _remove(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._live -= size


def _are_scores(value: Tensor) -> bool:
    """Tell attention scores by their shape; the products of several heads may have one axis for rows and heads."""
    square = value.ndim in (3, 4) and value.shape[-1] == value.shape[-2]
    return square and (value.shape[1] > 1 if value.ndim == 4 else value.shape[0] > 1)
