"""What follows the encoder: pooler, classifier and sigmoid."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ScoringHead"]


class ScoringHead(nn.Module):
    """Score pairs: what follows the encoder, then the sigmoid.

    Args:
        pooler: The layers between the encoder's state and the classifier; shared, not copied.
        classifier: The linear layer of one output; shared too.
    """

    def __init__(self, pooler: nn.Module, classifier: nn.Linear) -> None:
        super().__init__()
        self.pooler, self.classifier = pooler, classifier

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Score pairs.

        Args:
            hidden: float32, (batch_size, hidden_size).

        Returns:
            relevance_score, float32, (batch_size, 1), in [0, 1]; logits, the same before the sigmoid, unbounded.
        """
        logits: Tensor = self.classifier(self.pooler(hidden.to(self.classifier.weight.dtype))).float()
        return torch.sigmoid(logits), logits
