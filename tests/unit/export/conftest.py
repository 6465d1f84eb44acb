"""Tiny checkpoints, and a toy that exports in a second: one encoder that is an ensemble's only step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import BUILDERS
from fakes.dual_encoder import MANIFEST
from lychee_client.manifest import GoldenInput, GoldenPair, ModelSpec
from lychee_export import exporter
from lychee_export.contract.signature import SCORE_OUTPUTS, Axis, ModelSignature, Tensors, TensorSpec
from lychee_export.families import Checkpoint, ModelCard, Piece, Reference
from msgspec import convert
from torch import Tensor, nn

LENGTH = Axis("sequence_length", (16, 32, 64))
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


class WeightedEncoder(nn.Module):
    """Score a row by an embedding, two matrices and the mean over unmasked positions."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.embedding = nn.Embedding(60, 64)
        self.inner = nn.Linear(64, 64)
        self.outer = nn.Linear(64, 1)
        with torch.no_grad():
            self.inner.weight.mul_(gain)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Outputs:
        """Return relevance_score and logits, float32, (batch_size, 1)."""
        mask = attention_mask[..., None].to(self.outer.weight.dtype)
        hidden = torch.tanh(self.inner(self.embedding(input_ids))) * mask
        mean = hidden.sum(1) / mask.sum(1)
        return score(4 * self.outer(mean).float(), attention_mask)


def sample_rows(rng: np.random.Generator, rows: int) -> Tensors:
    ids = rng.integers(1, 60, (rows, 16))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Write a tiny checkpoint of a real family, once per name."""
    return cache(lambda name: BUILDERS[name](tmp_path_factory.mktemp("checkpoints") / name))


@pytest.fixture
def make_piece() -> Callable[[Fault | None], Piece]:
    """Make the encoder, faithful or with a fault that turns right logits and the mask into wrong outputs."""
    return lambda fault: Piece(ENCODER, Encoder(fault).eval(), sample_rows)


@pytest.fixture
def toy(make_piece: Callable[[Fault | None], Piece]) -> Checkpoint:
    """Return the faithful checkpoint."""
    card = ModelCard(
        spec=convert({**MANIFEST, "family": "toy", "model_id": "toy", "revision": "0"}, ModelSpec),
        ensembles=(ENSEMBLE,),
        tokenizer_json="{}",
    )
    rows = {"rerank": sample_rows(np.random.default_rng(5), 7)}
    reference = Reference(rows, (GoldenPair(GoldenInput("query"), GoldenInput("text"), 0.5),))
    return Checkpoint(card, (make_piece(None),), lambda: reference)


@pytest.fixture
def weighted(toy: Checkpoint) -> Checkpoint:
    """Return a checkpoint whose encoder has weights."""
    return replace(toy, pieces=(Piece(ENCODER, WeightedEncoder().eval(), sample_rows),))


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[Checkpoint], None]:
    """Choose what every checkpoint name loads; the toys' manifests say nothing to a client."""
    monkeypatch.setattr(exporter, "measure_golden_error", lambda repository, accepted: 0.0)
    return lambda checkpoint: monkeypatch.setattr(exporter, "load_checkpoint", lambda *_, **__: checkpoint)
