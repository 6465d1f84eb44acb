"""Llama without a causal mask, and the head that scores the mean of its states, as one batchable graph each."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from lychee_export.families.decoder import Decoder, put_images, take_mean

__all__ = ["ImageTextEncoder", "ScoringHead", "TextEncoder"]


class TextEncoder(nn.Module):
    """Read a prompt in both directions.

    Args:
        model: The ``LlamaModel``; its weights are shared, not copied.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.decoder = Decoder(model, causal=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode pairs.

        Args:
            input_ids: int64, (batch_size, sequence_length).
            attention_mask: int64, (batch_size, sequence_length), 1 for a token, 0 for padding.

        Returns:
            The means of the tokens' states after the final norm, float32, (batch_size, hidden_size).
        """
        return take_mean(self.decoder(self.decoder.embed_tokens(input_ids), attention_mask), attention_mask)


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
        x = put_images(self.decoder.embed_tokens(input_ids), is_image, image_embeds)
        return take_mean(self.decoder(x, attention_mask), attention_mask)


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
