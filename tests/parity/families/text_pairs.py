"""A reranker of texts in the exporter's modules and with the client's tokens, beside what transformers computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime
import pytest
import torch
from checkpoints.exports import LIMITS
from checkpoints.inputs import TEXTS
from lychee_client.preprocessing.prompt import Part, PromptProcessor
from lychee_client.preprocessing.text import TokenizedText
from lychee_export.contract.signature import ModelSignature, Tensors
from lychee_export.errors import CheckpointError
from lychee_export.exporter import export_checkpoint
from lychee_export.families import Checkpoint, load_checkpoint
from lychee_export.onnx.runtime import run_model
from msgspec import structs

from .torch_modules import run_module

SCORE_ATOL = 1e-4
LOGIT_ATOL = 1e-4
QUERIES = ("一只猫", "the yellow cat", "Hot drink?", "怎么退款", "a", "coffee: a cup", "flowers & sofas (in yellow)")
LONG_TEXT = "the unbelievable, uncharacteristic cats sleep; 小猫喜欢晒太阳! " * 100

Run = Callable[[ModelSignature, Tensors], Tensors]
Pairs = Sequence[tuple[str, str]]


class Judge(Protocol):
    """What transformers computes."""

    def compute_logits(self, pairs: Pairs) -> torch.Tensor:
        """Score pairs: float32, (num_pairs,)."""


class LoadedPairs:
    """A checkpoint: in transformers, in the exporter's modules, and with the client's tokenization.

    Args:
        folder: The checkpoint.
        reference: The same in transformers.
    """

    def __init__(self, folder: Path, reference: Judge) -> None:
        self.folder = folder
        self.reference: Any = reference
        self.checkpoint: Checkpoint = load_checkpoint(str(folder), LIMITS)
        self.modules: dict[str, Any] = {piece.signature.name: piece.module for piece in self.checkpoint.pieces}
        self.instruction = self.checkpoint.card.spec.instruction
        self.read_prompt()

    def read_prompt(self, **changes: Any) -> None:
        """Have the client fill the checkpoint's prompt, or one that is changed."""
        card = self.checkpoint.card
        assert card.spec.prompt is not None
        prompt = structs.replace(card.spec.prompt, **changes)
        self.prompts = PromptProcessor(card.tokenizer_json, card.spec.text, prompt)

    def tokenize(self, pairs: Pairs) -> list[TokenizedText]:
        """Tokenize with the client."""
        rows = []
        for query, document in pairs:
            frame = self.prompts.make_frame(Part(query), self.instruction and self.instruction.default)
            (row,) = self.prompts.tokenize(frame, [Part(document)])
            assert isinstance(row, TokenizedText), row
            rows.append(row)
        return rows

    def run(self, signature: ModelSignature, tensors: Tensors) -> Tensors:
        """Run a torch module."""
        return run_module(self.modules[signature.name], signature, tensors)

    def run_all(self, run: Run, pairs: Pairs, *, more: int = 0) -> Tensors:
        """Tokenize as the client does, run the ensemble's models in order and return every tensor.

        Args:
            run: Runs a model.
            pairs: Queries and documents.
            more: How much padding is added to what the client makes.
        """
        (ensemble,) = self.checkpoint.card.ensembles
        rows = self.prompts.to_tensors(self.tokenize(pairs))
        tensors: Tensors = {
            spec.name: np.pad(rows[spec.name], ((0, 0), (0, more)), constant_values=spec.pad_value)
            for spec in ensemble.inputs
        }
        for step in ensemble.steps:
            tensors |= run(step, tensors)
        return tensors


def run_files(repository: Path) -> Run:
    """Return what runs the ONNX files of an export."""
    sessions = {
        path.parent.parent.name: onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for path in repository.glob("*/*/model.onnx")
        if path.parent.parent.name != "client_assets"
    }
    return lambda signature, tensors: run_model(sessions[signature.name], signature, tensors)


def make_pairs(batch: int) -> list[tuple[str, str]]:
    """Return the last so many pairs; one document is longer than the export reads."""
    return list(zip(QUERIES, TEXTS, strict=True))[-batch:]


def assert_pairs_equal(loaded: LoadedPairs, run: Run) -> None:
    """Compare scores and logits with the reference in batches of 1 to 7."""
    for batch in range(1, 8):
        pairs = make_pairs(batch)
        seen = loaded.run_all(run, pairs)
        assert seen["relevance_score"].shape == seen["logits"].shape == (batch, 1)
        logits = loaded.reference.compute_logits(pairs)
        scores = torch.from_numpy(seen["relevance_score"])[:, 0]
        torch.testing.assert_close(scores, logits.sigmoid(), atol=SCORE_ATOL, rtol=0)
        torch.testing.assert_close(torch.from_numpy(seen["logits"])[:, 0], logits, atol=LOGIT_ATOL, rtol=0)
    assert float(logits.sigmoid().max() - logits.sigmoid().min()) > 100 * SCORE_ATOL


def assert_padding_changes_nothing(loaded: LoadedPairs, run: Run) -> None:
    """Compare the score of a pair with that of the same pair with more padding."""
    scores = [float(loaded.run_all(run, make_pairs(7)[1:2], more=more)["relevance_score"][0, 0]) for more in (0, 32)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)


def export_in(precision: Any, target: Any, folder: Path, models: Path) -> tuple[Any, list[str]]:
    """Export a checkpoint in a precision; return the report and what the export said."""
    lines: list[str] = []
    report = export_checkpoint(str(folder), models, precision, lines.append, limits=LIMITS, target=target)
    assert report.manifest.precision == precision
    if target == "cuda":
        assert any(line.startswith("half floats move a score by at most") for line in lines)
    return report, lines


def assert_static_int8_is_refused(folder: Path, models: Path) -> None:
    """Export a checkpoint in the precision that is for dual encoders."""
    with pytest.raises(CheckpointError, match=r"precision s8 is for dual encoders .* Choose --precision w8"):
        export_checkpoint(str(folder), models, "s8", limits=LIMITS)
