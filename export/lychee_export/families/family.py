"""What a family module gives to the family-free rest of the exporter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from ..signature import SCORE_OUTPUTS, ModelSignature, Tensors

__all__ = ["Checkpoint", "GoldenPair", "Piece"]


@dataclass(frozen=True)
class Piece:
    """One torch module that becomes one ONNX file.

    Args:
        signature: The module's tensors; ``forward`` takes the inputs in this order.
        module: The module, in evaluation mode, float32.
        sample_inputs: Makes valid inputs with the given number of rows.
    """

    signature: ModelSignature
    module: nn.Module
    sample_inputs: Callable[[np.random.Generator, int], Tensors]


@dataclass(frozen=True)
class GoldenPair:
    """A query and a document with the reference implementation's score.

    Args:
        query: The query text.
        relevance_score: In [0, 1], computed by the torch modules in float32.
        text: The document's text, if it has one.
        image_png: The document's image as a PNG file, if it has one.
    """

    query: str
    relevance_score: float
    text: str | None = None
    image_png: bytes | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint, split into exportable pieces.

    Args:
        model_id: The name users know.
        revision: Identifies the weights.
        family: The family module's name.
        pipeline: The client's pipeline for it, "dual_encoder" or "cross_encoder".
        pieces: The torch modules, encoders first.
        ensembles: Ensembles over the pieces; their outputs are SCORE_OUTPUTS.
        ensemble_rows: For every ensemble at least seven realistic rows, as the client would send them.
        buckets: Sizes to which the client pads variable axes.
        preprocessing: What the client needs to know beyond the tensors; goes into the manifest as it is.
        tokenizer_json: A ``tokenizers`` file.
        golden_pairs: A handful of pairs with reference scores.
    """

    model_id: str
    revision: str
    family: str
    pipeline: str
    pieces: tuple[Piece, ...]
    ensembles: tuple[ModelSignature, ...]
    ensemble_rows: Mapping[str, Tensors]
    buckets: tuple[int, ...]
    preprocessing: Mapping[str, Any]
    tokenizer_json: str
    golden_pairs: tuple[GoldenPair, ...]

    def __post_init__(self) -> None:
        for ensemble in self.ensembles:
            if ensemble.outputs != SCORE_OUTPUTS:
                raise ValueError(f"{ensemble.name}: an ensemble gives {SCORE_OUTPUTS}, got {ensemble.outputs}")
