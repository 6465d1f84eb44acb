"""The authors' side of a comparison of ColBERT models: nothing here comes from the exporter or the client.

Rebuilt from reading colbert-ai 0.2.22, colbert/modeling/colbert.py and colbert/modeling/tokenization/; PyLate 1.6.0,
pylate/models/colbert.py and Dense.py, pylate/scores/colbert.py; sentence-transformers 5.3.0, models/Transformer.py.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, BertModel

from checkpoints.authors_rerankers import compute_flash_states, read_authors_model

_PADDED = -9999.0


@dataclass(frozen=True)
class ColbertModel:
    """A ColBERT checkpoint as its authors run it.

    Args:
        compute_states: Maps ids and mask to the states of all tokens, in float32.
        project: Maps states to vectors that have no unit length yet.
        tokenizer: The tokenizer of the checkpoint.
        settings: The content of artifact.metadata, or PyLate's settings by the same names.
        known: The vectors of texts that were asked for before.
    """

    compute_states: Callable[[Tensor, Tensor], Tensor]
    project: Callable[[Tensor], Tensor]
    tokenizer: Any
    settings: dict[str, Any]
    known: dict[tuple[str, bool], Tensor] = field(default_factory=dict)

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

    def count_tokens(self, text: str) -> int:
        """Return how many tokens a whole text has, with its marker."""
        return len(self.tokenizer(text)["input_ids"]) + 1

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
        return torch.nn.functional.normalize(self.project(self.compute_states(ids, mask)), p=2, dim=2)

    def embed_query(self, query: str) -> Tensor:
        """Return a query's vectors as the server takes them, (1, query_maxlen, dim), zeros where there is no token."""
        vectors = self.embed(*self.tokenize_query(query))
        return torch.nn.functional.pad(vectors, (0, 0, 0, self.settings["query_maxlen"] - vectors.shape[1]))

    def compute_logits(self, pairs: Sequence[tuple[str, str]]) -> Tensor:
        """Return the authors' scores, float32, (pairs,): for each vector of the query the largest cosine, summed."""
        logits = []
        for query, document in pairs:
            counts = self.counts(self.tokenize_document(document)[0])
            vectors = self._embed_text(document, False) * counts[..., None]
            cosines = vectors @ self._embed_text(query, True).transpose(1, 2)  # (1, tokens, query_maxlen)
            cosines[~counts] = _PADDED
            logits.append(cosines.max(1).values.sum(-1)[0])
        return torch.stack(logits)

    def _embed_text(self, text: str, is_query: bool) -> Tensor:
        if (text, is_query) not in self.known:
            tokens = self.tokenize_query(text) if is_query else self.tokenize_document(text)
            self.known[text, is_query] = self.embed(*tokens)
        return self.known[text, is_query]

    def score(self, pairs: Sequence[tuple[str, str]]) -> Tensor:
        """Return the mean cosine, mapped from [-1, 1] to [0, 1]: float32, (pairs,)."""
        lengths = [self.tokenize_query(query)[0].shape[1] for query, _ in pairs]
        return (1 + self.compute_logits(pairs) / torch.tensor(lengths)) / 2


class PylateModel(ColbertModel):
    """A checkpoint of PyLate's layout as PyLate runs it, one text at a time."""

    def tokenize_query(self, query: str) -> tuple[Tensor, Tensor]:
        """Return ids and attention mask; a query that is not filled has its own length."""
        length = self.settings["query_maxlen"] - 1
        filling = {"padding": "max_length"} if self.settings["fills"] else {}
        encoded = self._tokenize(query, length, **filling)
        ids, mask = self._mark(encoded, self.settings["query_token_id"])
        return ids, torch.ones_like(mask) if self.settings["attend_to_mask_tokens"] else mask

    def tokenize_document(self, document: str) -> tuple[Tensor, Tensor]:
        """See ColbertModel."""
        return self._mark(self._tokenize(document, self.settings["doc_maxlen"] - 1), self.settings["doc_token_id"])

    def count_tokens(self, text: str) -> int:
        """See ColbertModel."""
        return super().count_tokens(text.strip())

    def counts(self, ids: Tensor) -> Tensor:
        """See ColbertModel; only the listed words do not count."""
        skipped = self.tokenizer.convert_tokens_to_ids(self.settings["skiplist_words"])
        return ~torch.isin(ids, torch.tensor(skipped, dtype=torch.int64))

    def _tokenize(self, text: str, length: int, **options: Any) -> Any:
        return self.tokenizer(
            [text.strip()], truncation="longest_first", max_length=length, return_tensors="pt", **options
        )


def load_colbert(folder: Path) -> ColbertModel:
    """Load a checkpoint."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if (folder / "modules.json").is_file():
        return _load_pylate(folder, tokenizer)
    weight = load_file(folder / "model.safetensors")["linear.weight"].float()
    settings = json.loads((folder / "artifact.metadata").read_text())
    if "auto_map" in json.loads((folder / "config.json").read_text()):
        model: Any = read_authors_model(folder, compute_flash_states)
        return ColbertModel(lambda ids, mask: model.compute(model, ids, mask), _multiply(weight), tokenizer, settings)
    bert = BertModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    return ColbertModel(_states_of(bert), _multiply(weight), tokenizer, settings)


def _load_pylate(folder: Path, tokenizer: Any) -> PylateModel:
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    tokenizer.pad_token = tokenizer.mask_token
    saved = json.loads((folder / "config_sentence_transformers.json").read_text())
    settings = {
        "query_token_id": saved["query_prefix"],
        "doc_token_id": saved["document_prefix"],
        "query_maxlen": saved["query_length"],
        "doc_maxlen": saved["document_length"],
        "fills": saved["do_query_expansion"],
        "attend_to_mask_tokens": saved["do_query_expansion"] and saved["attend_to_expansion_tokens"],
        "skiplist_words": saved["skiplist_words"],
    }
    layers = []
    for module in json.loads((folder / "modules.json").read_text())[1:]:
        config = json.loads((folder / module["path"] / "config.json").read_text())
        weights = load_file(folder / module["path"] / "model.safetensors")
        settings["dim"] = config["out_features"]
        matrix = weights["linear.weight"]
        if config["use_residual"]:  # a sum of matrices does the same as a sum of what they give
            matrix = matrix + weights.get("residual.weight", torch.eye(config["in_features"]))
        layers.append(_multiply(matrix))

    def project(states: Tensor) -> Tensor:
        for layer in layers:
            states = layer(states)
        return states

    return PylateModel(_states_of(model), project, tokenizer, settings)


def _states_of(model: Any) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda ids, mask: model(ids, attention_mask=mask).last_hidden_state


def _multiply(weight: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda states: states @ weight.T
