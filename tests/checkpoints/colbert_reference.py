"""The authors' side of a comparison of ColBERT models: nothing here comes from the exporter or the client.

Rebuilt from reading colbert-ai 0.2.22: colbert/modeling/colbert.py and colbert/modeling/tokenization/.
"""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer, BertModel

_PADDED = -9999.0


@dataclass(frozen=True)
class ColbertModel:
    """A ColBERT checkpoint as its authors run it.

    Args:
        bert: In float32.
        linear: The weight of the linear layer.
        tokenizer: The tokenizer of the checkpoint.
        settings: The content of artifact.metadata.
    """

    bert: Any
    linear: Tensor
    tokenizer: Any
    settings: dict[str, Any]

    def tokenize_query(self, query: str) -> tuple[Tensor, Tensor]:
        """Return ids and attention mask, (1, query_maxlen) each."""
        length = self.settings["query_maxlen"] - 1
        encoded = self.tokenizer([query], padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        ids, mask = self._mark(encoded, self.settings["query_token_id"])
        ids[ids == self.tokenizer.pad_token_id] = self.tokenizer.mask_token_id
        if self.settings["attend_to_mask_tokens"]:
            mask[ids == self.tokenizer.mask_token_id] = 1
        return ids, mask

    def tokenize_document(self, document: str) -> tuple[Tensor, Tensor]:
        """Return ids and attention mask, (1, tokens) each."""
        length = self.settings["doc_maxlen"] - 1
        encoded = self.tokenizer([document], truncation="longest_first", max_length=length, return_tensors="pt")
        return self._mark(encoded, self.settings["doc_token_id"])

    def _mark(self, encoded: Any, marker: str) -> tuple[Tensor, Tensor]:
        ids, mask = encoded["input_ids"], encoded["attention_mask"]
        inserted = torch.full((1, 1), self.tokenizer.convert_tokens_to_ids(marker))
        ids = torch.cat([ids[:, :1], inserted, ids[:, 1:]], 1)
        return ids, torch.cat([mask[:, :1], torch.ones_like(inserted), mask[:, 1:]], 1)

    def counts(self, ids: Tensor) -> Tensor:
        """Return which tokens of a document count: bool, like the ids."""
        skipped = {self.tokenizer.pad_token_id}
        if self.settings["mask_punctuation"]:
            skipped |= {self.tokenizer.encode(symbol, add_special_tokens=False)[0] for symbol in string.punctuation}
        return torch.tensor([[token not in skipped for token in row] for row in ids.tolist()])

    @torch.no_grad()
    def embed(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return the vectors of all tokens, float32, (1, tokens, dim), of unit length."""
        hidden = self.bert(ids, attention_mask=mask).last_hidden_state
        return torch.nn.functional.normalize(hidden @ self.linear.T, p=2, dim=2)

    def compute_logits(self, pairs: Sequence[tuple[str, str]]) -> Tensor:
        """Return the authors' scores, float32, (pairs,): for each vector of the query the largest cosine, summed."""
        logits = []
        for query, document in pairs:
            ids, mask = self.tokenize_document(document)
            counts = self.counts(ids)
            vectors = self.embed(ids, mask) * counts[..., None]
            cosines = vectors @ self.embed(*self.tokenize_query(query)).transpose(1, 2)  # (1, tokens, query_maxlen)
            cosines[~counts] = _PADDED
            logits.append(cosines.max(1).values.sum(-1)[0])
        return torch.stack(logits)

    def score(self, pairs: Sequence[tuple[str, str]]) -> Tensor:
        """Return the mean cosine, mapped from [-1, 1] to [0, 1]: float32, (pairs,)."""
        return (1 + self.compute_logits(pairs) / self.settings["query_maxlen"]) / 2


def load_colbert(folder: Path) -> ColbertModel:
    """Load a checkpoint."""
    bert = BertModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    linear = load_file(folder / "model.safetensors")["linear.weight"].float()
    settings = json.loads((folder / "artifact.metadata").read_text())
    return ColbertModel(bert, linear, AutoTokenizer.from_pretrained(folder), settings)
