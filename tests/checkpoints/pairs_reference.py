"""The other side of a comparison of text cross-encoders: nothing here comes from the exporter or the client."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerFast

from checkpoints.authors_rerankers import load_authors_model


@dataclass(frozen=True)
class PairModel:
    """A reranker as users of transformers run it, or of its authors' code.

    Args:
        model: In float32.
        tokenizer: Of the checkpoint.
        max_tokens: The longest pair.
    """

    model: Any
    tokenizer: Any
    max_tokens: int

    def tokenize(self, pairs: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
        """Tokenize pairs, padded to the longest; too long a document loses its end."""
        queries, documents = ([pair[side] for pair in pairs] for side in (0, 1))
        options = {"padding": True, "truncation": "only_second", "max_length": self.max_tokens}
        return dict(self.tokenizer(queries, documents, return_tensors="pt", **options))

    @torch.no_grad()
    def compute_logits(self, pairs: Sequence[tuple[str, str]]) -> Tensor:
        """Score pairs: float32, (num_pairs,)."""
        logits: Tensor = self.model(**self.tokenize(pairs)).logits
        return logits[:, 0]

    def score(self, pairs: Sequence[tuple[str, str]]) -> Tensor:
        """Return the sigmoid of the logits: float32, (num_pairs,)."""
        return torch.sigmoid(self.compute_logits(pairs))


def load_pair_model(folder: Path, max_tokens: int | None = None) -> PairModel:
    """Load a checkpoint with transformers or as its authors' code does.

    Args:
        folder: The checkpoint.
        max_tokens: The longest pair. None takes what the model reads itself, and it is the most in any case.
    """
    model: Any = load_authors_model(folder)
    if model is None:
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        ).eval()
    kind = getattr(model.config, "model_type", "xlm-roberta")  # which jina's config.json does not say
    # DeBERTa's authors, and mixedbread's, used tokenizer.json as it is; transformers 5 writes its normalizer anew.
    tokenizer_class: Any = PreTrainedTokenizerFast if kind == "deberta-v2" else AutoTokenizer
    tokenizer = tokenizer_class.from_pretrained(folder, trust_remote_code=False)
    positions = model.config.max_position_embeddings
    if "roberta" in kind:
        positions -= model.config.pad_token_id + 1
    return PairModel(model, tokenizer, min(positions, tokenizer.model_max_length, max_tokens or positions))
