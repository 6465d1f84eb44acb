"""Llama without a causal mask, and the head that scores the mean of its states, as one batchable graph each."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from lychee_export.families.attention import attention_bias

__all__ = ["ImageTextEncoder", "ScoringHead", "TextEncoder"]


class TextEncoder(nn.Module):
    """Read a prompt in both directions.

    Args:
        model: The ``LlamaModel``; its weights are shared, not copied.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.embed_tokens, self.layers, self.norm = model.embed_tokens, model.layers, model.norm
        # Plain attributes, not buffers: they stay as they are when the module becomes float16.
        self.inverse_frequencies = model.rotary_emb.inv_freq.detach().clone()  # (head_dim / 2,)
        self.rotary_scale = float(model.rotary_emb.attention_scaling)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode pairs.

        Args:
            input_ids: int64, (batch_size, sequence_length).
            attention_mask: int64, (batch_size, sequence_length), 1 for a token, 0 for padding.

        Returns:
            The means of the tokens' states after the final norm, float32, (batch_size, hidden_size).
        """
        return self._read(self.embed_tokens(input_ids), attention_mask)

    def _read(self, x: Tensor, attention_mask: Tensor) -> Tensor:
        """Run the layers on embedded tokens and return the means."""
        rotation = self._rotate(x)
        given: dict[torch.dtype, tuple[Tensor, tuple[Tensor, ...]]] = {}
        for layer in self.layers:
            dtype = layer.self_attn.o_proj.weight.dtype
            if dtype not in given:
                given[dtype] = attention_bias(attention_mask, dtype), tuple(part.to(dtype) for part in rotation)
            bias, angles = given[dtype]
            x = layer(x, attention_mask=bias, position_embeddings=angles)
        states = cast(Tensor, self.norm(x)).float()
        counted = (attention_mask > 0).float()[..., None]  # (batch_size, sequence_length, 1)
        return (states * counted).sum(1) / counted.sum(1)

    def _rotate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosine and sine of the rotary angles; float32, (1, sequence_length, head_dim)."""
        places = torch.arange(x.shape[1], device=x.device).float()
        angles = places[None, :, None] * self.inverse_frequencies.to(x.device)
        angles = torch.cat([angles, angles], -1)
        return angles.cos() * self.rotary_scale, angles.sin() * self.rotary_scale


class ImageTextEncoder(TextEncoder):
    """Read a prompt in which tokens stand for tiles of an image.

    Args:
        model: The ``LlamaModel``; its weights are shared, not copied.
        image_token_id: The token that stands for a part of an image.
    """

    def __init__(self, model: Any, image_token_id: int) -> None:
        super().__init__(model)
        self.image_token_id = image_token_id

    def forward(self, input_ids: Tensor, attention_mask: Tensor, image_embeds: Tensor) -> Tensor:  # type: ignore[override]
        """Encode pairs.

        Args:
            input_ids: int64, (batch_size, sequence_length).
            attention_mask: int64, (batch_size, sequence_length), 1 for a token, 0 for padding.
            image_embeds: float32, (batch_size, num_image_tokens, hidden_size); the first belongs to the first token of
                the image, and so on. What follows is ignored.

        Returns:
            The means of the tokens' states after the final norm, float32, (batch_size, hidden_size).
        """
        is_image = (input_ids == self.image_token_id) & (attention_mask > 0)
        before = is_image.to(torch.int64).cumsum(1) - is_image.to(torch.int64)  # image tokens before this one
        rows, count, width = image_embeds.shape
        index = before.clamp(max=count - 1) + torch.arange(rows, device=input_ids.device)[:, None] * count
        images = image_embeds.reshape(-1, width)[index.reshape(-1)].reshape(rows, input_ids.shape[1], width)
        x = self.embed_tokens(input_ids)
        return self._read(torch.where(is_image[..., None], images.to(x.dtype), x), attention_mask)


class ScoringHead(nn.Module):
    """Score pairs: the linear layer without a bias, divided by the temperature, then the sigmoid.

    Args:
        score: The linear layer of one output; shared, not copied.
        temperature: What the logit is divided by.
    """

    def __init__(self, score: nn.Linear, temperature: float) -> None:
        super().__init__()
        self.score, self.temperature = score, temperature

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Score pairs.

        Args:
            hidden: float32, (batch_size, hidden_size).

        Returns:
            relevance_score, float32, (batch_size, 1), in [0, 1]; logits, the same before the sigmoid, unbounded.
        """
        logits = cast(Tensor, self.score(hidden.to(self.score.weight.dtype))).float() / self.temperature
        return torch.sigmoid(logits), logits
