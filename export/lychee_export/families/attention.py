"""Attention masks: what a token sees, and what is added to attention scores for it."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["attention_bias", "local_bias", "mask_scores", "see_all", "see_causally"]

_MASKED = -1e4
"""Far below any attention score, so that a masked key gets the weight 0, and finite when added to one in float16."""


def attention_bias(attention_mask: Tensor, dtype: torch.dtype, *, causal: bool = False) -> Tensor:
    """Turn a padding mask into a bias, in the form that transformers' models take as it is.

    Args:
        attention_mask: The padding mask: int64, (batch_size, sequence_length), 1 for a token, 0 for padding.
        dtype: The dtype of the model; the bias gets it.
        causal: Whether a token reads only itself and what stands before it.

    Returns:
        dtype, (batch_size, 1, sequence_length, sequence_length): 0 where a token reads another one.
    """
    length = attention_mask.shape[1]
    seen = (attention_mask > 0)[:, None, None, :].expand(-1, 1, length, length)
    if causal:
        position = torch.arange(length, device=attention_mask.device)
        seen = seen & (position[None, :] <= position[:, None])
    return torch.where(seen, 0.0, _MASKED).to(dtype)


def local_bias(bias: Tensor, window: int) -> Tensor:
    """Narrow a bias, so that a token reads those alone that are at most so many places away, on either side.

    Padding that is so far from any token reads itself: scores that are all masked would look like an overflow of half
    floats.

    Args:
        bias: What `attention_bias` returns.
        window: The largest distance, in tokens.

    Returns:
        Like ``bias``.
    """
    position = torch.arange(bias.shape[-1], device=bias.device)
    distance = (position[None, :] - position[:, None]).abs()  # (sequence_length, sequence_length)
    narrowed = torch.where(distance <= window, bias, torch.full_like(bias, _MASKED))
    alone = narrowed.amax(-1, keepdim=True) < 0  # (batch_size, 1, sequence_length, 1)
    return torch.where(alone & (distance == 0), torch.zeros_like(bias), narrowed)


def see_causally(valid: Tensor) -> Tensor:
    """Tell which tokens a token sees: those up to itself and no padding; bool, (batch_size, 1, queries, keys).

    Padding sees itself: softmax of nothing but -inf is NaN in ONNX Runtime.

    Args:
        valid: Which tokens are no padding: bool, (batch_size, sequence_length).
    """
    places = torch.arange(valid.shape[1], device=valid.device)
    causal, itself = places[:, None] >= places, places[:, None] == places  # (sequence_length, sequence_length)
    return causal & (valid[:, None, None] | itself)


def see_all(valid: Tensor) -> Tensor:
    """Tell the same where a token sees all that are no padding, before and after it; bool, (batch_size, 1, 1, keys)."""
    return valid[:, None, None]


def mask_scores(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what is added to the attention scores of a language model, whose scores may be in the thousands."""
    return torch.where(allowed, 0.0, -1e4 if dtype == torch.float16 else -1e9).to(dtype)
