"""A toy checkpoint that exports in a second: one encoder that is an ensemble's only step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from lychee_export.families import Checkpoint, GoldenPair, Piece
from lychee_export.signature import SCORE_OUTPUTS, Axis, ModelSignature, Tensors, TensorSpec
from torch import Tensor, nn

LENGTH = Axis("sequence_length", 64)
IDS = TensorSpec("input_ids", "int64", (LENGTH,))
MASK = TensorSpec("attention_mask", "int64", (LENGTH,))
ENCODER = ModelSignature("encoder", (IDS, MASK), SCORE_OUTPUTS, 8, encoder=True)
ENSEMBLE = ModelSignature("rerank", (IDS, MASK), SCORE_OUTPUTS, 8, steps=(ENCODER,))

Outputs = tuple[Tensor, Tensor]
Fault = Callable[[Tensor, Tensor], Outputs]


def score(logits: Tensor, attention_mask: Tensor) -> Outputs:
    return torch.sigmoid(logits), logits


class Encoder(nn.Module):
    """Score a row by the mean of its unmasked ids, with one property broken on demand."""

    def __init__(self, fault: Fault | None = None) -> None:
        super().__init__()
        self.finish = fault or score

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Outputs:
        """Return relevance_score and logits, float32, (batch_size, 1)."""
        total = (input_ids * attention_mask).sum(1, keepdim=True).float()
        return self.finish(total / attention_mask.sum(1, keepdim=True) / 10 - 3, attention_mask)


def sample_rows(rng: np.random.Generator, rows: int) -> Tensors:
    ids = rng.integers(1, 60, (rows, 16))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


@pytest.fixture
def make_piece() -> Callable[[Fault | None], Piece]:
    """Make the encoder, faithful or with a fault that turns right logits and the mask into wrong outputs."""
    return lambda fault: Piece(ENCODER, Encoder(fault).eval(), sample_rows)


@pytest.fixture
def toy(make_piece: Callable[[Fault | None], Piece]) -> Checkpoint:
    """Return the faithful checkpoint."""
    return Checkpoint(
        model_id="toy",
        revision="0",
        family="toy",
        pipeline="dual_encoder",
        pieces=(make_piece(None),),
        ensembles=(ENSEMBLE,),
        ensemble_rows={"rerank": sample_rows(np.random.default_rng(5), 7)},
        buckets=(16, 32),
        preprocessing={},
        tokenizer_json="{}",
        golden_pairs=(GoldenPair("query", 0.5, text="text"),),
    )
