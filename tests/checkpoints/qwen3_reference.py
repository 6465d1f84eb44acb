"""transformers as the judge of Qwen3-Rerankers, used as their model card does: nothing here comes from the exporter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
TRAINED_TOKENS = 8192

_SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".'
)
_BEFORE = f"<|im_start|>system\n{_SYSTEM}<|im_end|>\n<|im_start|>user\n"
_AFTER = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


@dataclass(frozen=True)
class Qwen3RerankerModel:
    """A Qwen3-Reranker as its users run it.

    Args:
        model: In float32; a generative model, or a classifier.
        tokenizer: Of the checkpoint, padding on the left.
        max_tokens: The longest prompt.
    """

    model: Any
    tokenizer: Any
    max_tokens: int

    def tokenize(self, pairs: Sequence[tuple[str, str]], instruction: str = INSTRUCTION) -> dict[str, Tensor]:
        """Tokenize the message and the frame around it apart, cut the message's end, and pad on the left."""
        before, after = (self.tokenizer.encode(text, add_special_tokens=False) for text in (_BEFORE, _AFTER))
        rows = []
        for query, document in pairs:
            message = f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
            ids = self.tokenizer.encode(message, add_special_tokens=False)
            rows.append([*before, *ids[: self.max_tokens - len(before) - len(after)], *after])
        return dict(self.tokenizer.pad({"input_ids": rows}, padding=True, return_tensors="pt"))

    @torch.no_grad()
    def compute_logits(self, pairs: Sequence[tuple[str, str]], instruction: str = INSTRUCTION) -> Tensor:
        """Return the difference of the two answers' logits: float32, (num_pairs,)."""
        logits = self.model(**self.tokenize(pairs, instruction)).logits
        if logits.ndim == 2:  # a classifier
            return logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
        yes, no = (self.tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))
        return logits[:, -1, yes] - logits[:, -1, no]

    def score(self, pairs: Sequence[tuple[str, str]]) -> Tensor:
        """Return the sigmoid of the logits: float32, (num_pairs,)."""
        return torch.sigmoid(self.compute_logits(pairs))


def load_qwen3_reranker(folder: Path, max_tokens: int | None = None) -> Qwen3RerankerModel:
    """Load a checkpoint with transformers, to read so many tokens or what it was trained with if that is less."""
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    options = {"dtype": torch.float32, "attn_implementation": "eager"}
    classifier = "ForSequenceClassification" in (folder / "config.json").read_text()
    loader: Any = AutoModelForSequenceClassification if classifier else AutoModelForCausalLM
    model = loader.from_pretrained(folder, **options).eval()
    longest = min(model.config.max_position_embeddings, TRAINED_TOKENS, max_tokens or TRAINED_TOKENS)
    return Qwen3RerankerModel(model, tokenizer, longest)
