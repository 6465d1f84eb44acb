"""The weights of pieces that are on the disk: free them, for what follows needs the memory."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterable

import torch

from lychee_export.checkpoint.stored_weights import StoredWeight
from lychee_export.families.family import Piece

__all__ = ["release_weights", "return_memory"]


def release_weights(pieces: Iterable[Piece]) -> None:
    """Free the weights of pieces that have been exported.

    Forgetting the modules is not enough: onnxscript's rewrite rules keep parts of the last graph, tensors included.
    """
    for piece in pieces:
        for weight in (*piece.module.parameters(), *piece.module.buffers()):
            if not isinstance(weight, StoredWeight):  # those take no memory
                weight.data = torch.empty(0, dtype=weight.dtype)


def return_memory() -> None:
    """Give freed memory back to the system; glibc would keep gigabytes."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
