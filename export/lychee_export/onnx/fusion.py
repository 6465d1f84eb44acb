"""Fused attention: one operator of ONNX Runtime for the many of a layer's attention."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx_ir
from onnxscript.rewriter.ort_fusions import optimize_for_ort

from lychee_export.errors import ValidationError
from lychee_export.onnx.model_file import model_files, write_model

__all__ = ["fuse_attention"]

_FUSED_DOMAIN = "com.microsoft"
_FUSED_OPERATORS = frozenset({"Attention", "GroupQueryAttention", "MultiHeadAttention"})


def fuse_attention(path: Path, name: str) -> int:
    """Fuse the attention layers of a model file in place.

    The fused operators belong to ONNX Runtime and are not the same in all of its versions: 1.20 computes the rows
    after the first wrongly without a word, older ones refuse them, 1.21 and later are right.

    Args:
        path: The model file.
        name: The model's name, for messages.

    Returns:
        The number of layers that were fused.

    Raises:
        ValidationError: No layer was fused.
    """
    model, _ = optimize_for_ort(onnx_ir.load(path))
    count = sum(node.domain == _FUSED_DOMAIN and node.op_type in _FUSED_OPERATORS for node in model.graph.all_nodes())
    if not count:
        raise ValidationError(
            f"{name}: no attention layer could be fused, so --flash-attn would change nothing; export without it"
        )
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # the weights are read from the old file meanwhile
        write_model(model, Path(folder) / path.name)
        for new in model_files(Path(folder)):
            new.replace(path.with_name(new.name))
    return count
