"""The scoring head of late interaction: each vector of a query takes its largest cosine with a document's vectors."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lychee_export.contract.signature import SCORE_OUTPUTS, Axis, ModelSignature, Tensors, TensorSpec

__all__ = ["DOCUMENT_EMBEDDINGS", "MaxSim", "sample_vectors", "sign_max_sim"]

DOCUMENT_EMBEDDINGS = "document_embeddings"
_NAME = "scoring_head"

_LARGEST_MEAN = 2.0
"""Above any mean of cosines, those of vectors in half floats included."""


class MaxSim(nn.Module):
    """Score documents beside their query."""

    def forward(self, query_embeddings: Tensor, document_embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Score documents.

        Args:
            query_embeddings: float16, (batch_size, 1, query_length, dim), rows of unit length, or of zeros where there
                is no token.
            document_embeddings: float16, (batch_size, documents, sequence_length, dim), rows of unit length; a shorter
                document is padded with a vector of its own.

        Returns:
            relevance_score, float32, (batch_size, documents), in [0, 1]; logits, the sum of the query's largest
            cosines. NaN where a vector is not finite.
        """
        rows, documents, length = document_embeddings.shape[:3]
        query = query_embeddings[:, 0].float()  # (batch_size, query_length, dim)
        vectors = document_embeddings.float().flatten(1, 2)  # (batch_size, documents * sequence_length, dim)
        cosines = torch.bmm(vectors, query.transpose(1, 2)).reshape(rows, documents, length, query.shape[1])
        logits = cosines.amax(2).sum(-1)  # (batch_size, documents)
        # A maximum may lose a NaN, a mean keeps it.
        logits = torch.where(cosines.mean((2, 3)).abs() <= _LARGEST_MEAN, logits, torch.nan)
        tokens = (query.abs().amax(-1) > 0).sum(-1, keepdim=True).clamp(min=1)  # (batch_size, 1)
        scores = (1 + logits / tokens) / 2
        # No clamp, which may turn NaN into a number: half floats make a cosine of two equal vectors 1.0005.
        scores = torch.where(scores > 1, 1.0, torch.where(scores < 0, 0.0, scores))
        return scores, logits


def sign_max_sim(query: TensorSpec, length: int | Axis, max_documents: int, max_batch_size: int) -> ModelSignature:
    """Return the signature of the head, which takes many documents in one row, beside their query.

    Args:
        query: The query's vectors: float16, (1, query_length, dim).
        length: The length of a document in tokens.
        max_documents: The most documents of a row.
        max_batch_size: The most rows.
    """
    documents = Axis("documents", (max_documents,))
    vectors = TensorSpec(DOCUMENT_EMBEDDINGS, "float16", (documents, length, query.shape[-1]))
    scores = tuple(TensorSpec(output.name, output.dtype, (documents,)) for output in SCORE_OUTPUTS)
    return ModelSignature(_NAME, (query, vectors), scores, max_batch_size)


def sample_vectors(rng: np.random.Generator, rows: int, query_length: int, length: int, dim: int) -> Tensors:
    """Make inputs of the head: vectors of unit length, one document more than there are rows in each."""

    def draw(*shape: int) -> NDArray[np.float16]:
        vectors = rng.standard_normal((rows, *shape, dim))
        unit: NDArray[np.float16] = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float16)
        return unit

    return {"query_embeddings": draw(1, query_length), DOCUMENT_EMBEDDINGS: draw(rows + 1, length)}
