"""How much memory an export takes, from shapes alone."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call

from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.families import Piece
from lychee_export.onnx.half import HALF_TYPES
from lychee_export.onnx.quantization import Precision
from lychee_export.serving_memory import LiveBytes

__all__ = ["export_bytes"]

_PROCESS_BYTES = 400_000_000
"""Of torch, transformers, ONNX Runtime and the graphs. Measured: 322 MB after the imports, 60 to 100 MB for a graph."""
_ROWS = 7
_SAMPLES = 8
"""How many times the tensors of seven sample rows there are at once: the realistic rows are twice as long, where
attention takes four times as much, and torch and ONNX Runtime each keep what they once took."""
_CASTS = 2
"""How many times the largest weight is in memory while it is cast and written."""


def export_bytes(source: CheckpointSource, pieces: Iterable[Piece], precision: Precision) -> int:
    """Estimate the most memory that an export holds and cannot give back: its own, without the files that it maps.

    Args:
        source: The checkpoint.
        pieces: The checkpoint's models; their modules may lie on the meta device.
        precision: The precision of the export.
    """
    modules = [piece.module for piece in pieces]
    weights = {id(weight): weight for module in modules for weight in module.parameters()}.values()
    parameters = sum(weight.numel() for weight in weights)
    held = source.held_bytes(parameters, halved=precision in HALF_TYPES)
    largest = 4 * max((weight.numel() for weight in weights), default=0)
    return _PROCESS_BYTES + held + _CASTS * largest + _SAMPLES * max(map(_sample_bytes, pieces))


def _sample_bytes(piece: Piece) -> int:
    """Return the most bytes that tensors other than weights hold at once while the module runs on samples."""
    inputs = piece.sample_inputs(np.random.default_rng(0), _ROWS)
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
        tensors = {**dict(piece.module.named_parameters()), **dict(piece.module.named_buffers())}
        weights = {name: torch.empty(tensor.shape, dtype=tensor.dtype) for name, tensor in tensors.items()}
        arrays = [torch.from_numpy(inputs[spec.name]) for spec in piece.signature.inputs]
        live = LiveBytes(weights.values())
        with live:
            functional_call(piece.module, weights, tuple(torch.empty(x.shape, dtype=x.dtype) for x in arrays))
    return live.peak
