"""From tokens to vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["TokenEncoder"]


class TokenEncoder(nn.Module):
    """Make a vector of unit length of every token.

    Args:
        states: Maps ids and mask to the states of all tokens, (batch_size, sequence_length, hidden_size).
        projection: Maps a state to a vector.
        vocab_size: How many tokens there are.
        query_marker: The token that stands second in queries.
        skipped: The tokens of documents whose vectors do not count.
        fills: Whether the vectors of the tokens that fill a query count.
    """

    def __init__(
        self,
        states: nn.Module,
        projection: nn.Module,
        vocab_size: int,
        query_marker: int,
        skipped: Sequence[int],
        fills: bool = True,
    ) -> None:
        super().__init__()
        self.states, self.projection = states, projection
        self.query_marker, self.fills = query_marker, fills
        counts = torch.ones(vocab_size, dtype=torch.int64, device="cpu")
        counts[list(skipped)] = 0
        self.counts = counts  # no buffer: it is there on the meta device too

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode queries and documents.

        Args:
            input_ids: int64, (batch_size, sequence_length).
            attention_mask: int64, (batch_size, sequence_length), 1 for a token that the others read.

        Returns:
            float16, (batch_size, 1, sequence_length, dim). Where a document's token does not count, the vector of its
            first token stands a second time, which changes no maximum; so does it where there is padding. Where what
            fills a query does not count, there are zeros, which `MaxSim` leaves out.
        """
        states = self.states(input_ids, attention_mask)
        vectors = functional.normalize(self.projection(states).float(), dim=-1)  # (batch_size, sequence_length, dim)
        counts = self.counts.to(input_ids.device)[input_ids] * attention_mask  # (batch_size, sequence_length)
        is_query = input_ids[:, 1:2] == self.query_marker  # (batch_size, 1)
        others = vectors[:, :1]
        if self.fills:
            kept = (counts > 0) | is_query
        else:
            kept = torch.where(is_query, attention_mask, counts) > 0
            others = torch.where(is_query[..., None], torch.zeros_like(others), others)
        return torch.where(kept[..., None], vectors, others).half()[:, None]
