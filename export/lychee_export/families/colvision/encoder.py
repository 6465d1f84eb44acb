"""The encoder of texts and pages: Qwen-VL's language model, and a vector of every token's last state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lychee_export.families.qwen_vl.text import TextEncoder

__all__ = ["TokenEncoder", "make_vectors"]


class TokenEncoder(TextEncoder):
    """Read a text, or a page's prompt with its image, and make a vector of unit length of every token.

    Args:
        model: What ``TextEncoder`` takes.
        projection: The linear layer that makes vectors of states; its weights are shared, not copied.
    """

    def __init__(self, model: Any, projection: nn.Linear) -> None:
        super().__init__(model)
        self.projection = projection

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, image_embeds: Tensor, image_grid_thw: Tensor
    ) -> Tensor:
        """Encode texts and pages.

        Args:
            input_ids: See ``TextEncoder.read``, as the others; padded right.
            attention_mask: int64, (batch_size, sequence_length).
            image_embeds: float32, (batch_size, num_image_tokens, embedding_dim).
            image_grid_thw: int64, (batch_size, max_images, 3).

        Returns:
            float16, (batch_size, 1, sequence_length, dim); see ``make_vectors``.
        """
        states = self.norm(self.read(input_ids, attention_mask, image_embeds, image_grid_thw))
        return make_vectors(self.projection, states, attention_mask)


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
