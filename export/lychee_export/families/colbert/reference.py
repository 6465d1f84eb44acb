"""The authors' computation with transformers' own model, in float32 throughout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lychee_client.manifest import GoldenInput, GoldenPair, LateInteractionSpec
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lychee_export.contract.signature import ModelSignature, Tensors
from lychee_export.families.colbert.layout import Loaded
from lychee_export.families.family import Reference, round_score, round_scores
from lychee_export.families.samples import QUERIES, TEXTS
from lychee_export.families.text_format import TextFormat

__all__ = ["Judge"]

_MASKED = -9999.0
"""What the authors take for the cosine with a token that does not count."""
_GOLDEN_PAIRS = ((0, 1), (0, 6), (1, 2), (2, 0), (3, 5), (4, 4))
"""Indices of (query, text)."""


@dataclass(frozen=True)
class Judge:
    """What scores pairs.

    Args:
        loaded: The checkpoint.
        late: What is known of the tokens.
        text: How texts are made.
    """

    loaded: Loaded
    late: LateInteractionSpec
    text: TextFormat

    def make_reference(self, ensemble: ModelSignature) -> Reference:
        """Compute the rows for validation and the golden pairs."""
        queries, documents = self._tokenize_queries(QUERIES), self._tokenize_documents(TEXTS, self._find_bucket())
        vectors = self._embed(queries)  # (queries, query_tokens, dim)
        if not self.loaded.settings.fills:
            vectors = vectors * torch.from_numpy(queries["attention_mask"])[..., None]
        count = np.arange(len(TEXTS))
        grid = [axis.ravel() for axis in np.indices((len(QUERIES), len(TEXTS)))]
        scored: Tensors = {f"query_{name}": value[grid[0]] for name, value in queries.items()}
        scored |= {name: value[grid[1]] for name, value in documents.items()}
        whole = self._tokenize_documents(TEXTS, self.text.max_tokens)
        scores = self._score(queries, vectors, whole)
        golden = [(GoldenInput(QUERIES[q]), GoldenInput(TEXTS[d]), scores[q, d]) for q, d in _GOLDEN_PAIRS]
        padded = self._score(queries, vectors, documents).reshape(-1, 1)
        return Reference(
            {ensemble.name: {"query_embeddings": vectors[count % len(QUERIES), None].half().numpy()} | documents},
            tuple(GoldenPair(query, document, round_score(float(score))) for query, document, score in golden),
            {ensemble.name: scored | {"relevance_score": round_scores(padded)}},
            notes=self._describe_prompts(),
        )

    def _describe_prompts(self) -> tuple[str, ...]:
        query, document = self.text.query_prefix, self.text.document_prefix
        if not query and not document:
            return ()
        return (f"the checkpoint's prompts stand before every text: {query!r} for queries, {document!r} for documents",)

    def _tokenize_queries(self, queries: Sequence[str]) -> Tensors:
        """Put a marker into each query, and masks up to its length."""
        texts = [self.text.query_prefix + query for query in queries]
        tokens = self._tokenize(texts, self.late.query_marker, self.late.query_tokens, self.late.query_tokens)
        empty = tokens["input_ids"] == self.text.pad_token_id
        tokens["input_ids"][empty] = self.late.fill_token_id
        if self.late.attends_to_fill:
            tokens["attention_mask"][:] = 1
        return tokens

    def _tokenize_documents(self, documents: Sequence[str], length: int) -> Tensors:
        """Put a marker into each document, and pad it to a length."""
        texts = [self.text.document_prefix + document for document in documents]
        return self._tokenize(texts, self.late.document_marker, self.text.max_tokens, length)

    def _score(self, queries: Tensors, vectors: Tensor, tokens: Tensors) -> NDArray[np.float32]:
        """Return the mean of each query's largest cosines with each document, from 0 to 1: (queries, documents)."""
        skipped = np.isin(tokens["input_ids"], self.late.skipped_token_ids) | (tokens["attention_mask"] == 0)
        cosines = torch.einsum("qtd,nsd->qnst", vectors, self._embed(tokens))
        largest = cosines.masked_fill(torch.from_numpy(skipped)[None, ..., None], _MASKED).amax(2)
        counted = np.ones_like(queries["attention_mask"]) if self.loaded.settings.fills else queries["attention_mask"]
        weights = torch.from_numpy(counted)[:, None].float()  # (queries, 1, query_tokens)
        scores: NDArray[np.float32] = ((1 + (largest * weights).sum(-1) / weights.sum(-1)) / 2).numpy()
        return scores

    def _find_bucket(self) -> int:
        """Return the length that holds all samples, or the second largest, so that their padding can be tested."""
        buckets = self.text.buckets[:-1] or self.text.buckets
        texts = [self.text.document_prefix + text for text in TEXTS]
        longest = max(len(self.loaded.tokenizer(text)["input_ids"]) + 1 for text in texts)
        return next((bucket for bucket in buckets if bucket >= longest), buckets[-1])

    def _tokenize(self, texts: Sequence[str], marker: int, longest: int, length: int) -> Tensors:
        """Tokenize as the authors do: to one token less, and the marker comes in after the first."""
        options = {"padding": "max_length", "truncation": True, "max_length": min(longest, length) - 1}
        encoded = self.loaded.tokenizer(list(texts), return_tensors="np", **options)
        marked = {"input_ids": marker, "attention_mask": 1}
        return {name: np.insert(encoded[name].astype(np.int64), 1, value, axis=1) for name, value in marked.items()}

    @torch.no_grad()
    def _embed(self, tokens: Tensors) -> Tensor:
        """Return float32, (batch_size, sequence_length, dim), rows of unit length."""
        ids, mask = (torch.from_numpy(tokens[name]) for name in ("input_ids", "attention_mask"))
        states: Any = self.loaded.model(ids, attention_mask=mask).last_hidden_state
        return functional.normalize(self.loaded.projection(states), dim=-1)
