"""The vectors of tokens: a linear layer on a language model's states, cut to unit length."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["make_vectors"]


def make_vectors(projection: nn.Linear, states: Tensor, attention_mask: Tensor) -> Tensor:
    """Make a vector of unit length of every token.

    Args:
        projection: The linear layer.
        states: (batch_size, sequence_length, hidden_size).
        attention_mask: int64, (batch_size, sequence_length), 1 for a token and 0 for padding, on the right.

    Returns:
        float16, (batch_size, 1, sequence_length, dim). Where there is padding, the vector of the first token stands a
        second time, which changes no maximum.
    """
    vectors = functional.normalize(projection(states.to(projection.weight.dtype)).float(), dim=-1)
    return torch.where((attention_mask > 0)[..., None], vectors, vectors[:, :1]).half()[:, None]
