"""From vectors to scores."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["MaxSim"]

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
