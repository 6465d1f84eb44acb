"""The layers of a language model that reads texts alone, as one batchable graph without ``lm_head``."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from lychee_export.families.attention import mask_scores, see_all, see_causally
from lychee_export.families.rotary import rotary_angles

__all__ = ["Decoder", "put_images", "take_last", "take_mean", "take_rows"]


class Decoder(nn.Module):
    """Read embedded tokens with the layers of a language model of transformers.

    Args:
        model: The model, such as a ``LlamaModel`` or a ``Qwen3Model``, with rotary positions that do not depend on the
            sequence's length; its weights are shared, not copied.
        causal: Whether a token reads only itself and what stands before it.
    """

    def __init__(self, model: Any, *, causal: bool) -> None:
        super().__init__()
        self.embed_tokens, self.layers, self.norm = model.embed_tokens, model.layers, model.norm
        self.causal = causal
        # Plain attributes, not buffers: they stay as they are when the module becomes float16.
        self.inverse_frequencies = model.rotary_emb.inv_freq.detach().clone()  # (head_dim / 2,)
        self.rotary_scale = float(model.rotary_emb.attention_scaling)

    def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the tokens' states after the final norm.

        Args:
            x: The embedded tokens, (batch_size, sequence_length, hidden_size).
            attention_mask: int64, (batch_size, sequence_length), 1 for a token, 0 for padding.

        Returns:
            Like ``x``.
        """
        valid = attention_mask > 0
        allowed = see_causally(valid) if self.causal else see_all(valid)
        rotation = rotary_angles(attention_mask, self.inverse_frequencies, self.rotary_scale)
        given: dict[torch.dtype, tuple[Tensor, tuple[Tensor, ...]]] = {}
        for layer in self.layers:
            dtype = layer.self_attn.o_proj.weight.dtype
            if dtype not in given:
                given[dtype] = mask_scores(allowed, dtype), tuple(part.to(dtype) for part in rotation)
            bias, angles = given[dtype]
            x = layer(x, attention_mask=bias, position_embeddings=angles)
        return cast(Tensor, self.norm(x))


def put_images(x: Tensor, is_image: Tensor, image_embeds: Tensor) -> Tensor:
    """Put the embeddings of images into the places of their tokens.

    Args:
        x: The embedded tokens, (batch_size, sequence_length, hidden_size).
        is_image: Which tokens stand for a part of an image: bool, (batch_size, sequence_length).
        image_embeds: (batch_size, num_image_tokens, hidden_size); the first belongs to the first of those tokens, and
            so on. What follows is ignored.
    """
    before = is_image.to(torch.int64).cumsum(1) - is_image.to(torch.int64)  # image tokens before this one
    images = take_rows(image_embeds, before.clamp(max=image_embeds.shape[1] - 1))
    return torch.where(is_image[..., None], images.to(x.dtype), x)


def take_last(states: Tensor, attention_mask: Tensor) -> Tensor:
    """Return the state of each row's last token that is no padding: (batch_size, hidden_size)."""
    places = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    last = ((attention_mask > 0).to(torch.int64) * places).amax(1, keepdim=True)  # (batch_size, 1)
    return take_rows(states, last)[:, 0]


def take_mean(states: Tensor, attention_mask: Tensor) -> Tensor:
    """Return the mean of each row's states that are no padding: float32, (batch_size, hidden_size)."""
    counted = (attention_mask > 0).float()[..., None]  # (batch_size, sequence_length, 1)
    return (states.float() * counted).sum(1) / counted.sum(1)


def take_rows(x: Tensor, index: Tensor) -> Tensor:
    """Take the given places of each row: (batch_size, n, d) by int64 (batch_size, m) to (batch_size, m, d)."""
    rows, count, width = x.shape
    flat = index + torch.arange(rows, device=index.device)[:, None] * count
    return x.reshape(-1, width)[flat.reshape(-1)].reshape(rows, index.shape[1], width)
