"""ModernBERT: the first token or the mean of all stands for the pair."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from lychee_export.families.decoder import take_mean
from lychee_export.families.modernbert import ModernBertStates

__all__ = ["ModernBertEncoder"]


class ModernBertEncoder(ModernBertStates):
    """Encode pairs with ModernBERT.

    Args:
        model: A ``ModernBertForSequenceClassification``; its weights are shared, not copied.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model.model)
        self.means = model.config.classifier_pooling == "mean"

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode pairs.

        Args:
            input_ids: int64, (batch_size, sequence_length).
            attention_mask: int64, (batch_size, sequence_length), 1 for a token, 0 for padding.

        Returns:
            The states of the first tokens or the means of all, as the checkpoint wants it; float32, (batch_size,
            hidden_size).
        """
        states = super().forward(input_ids, attention_mask).float()
        return take_mean(states, attention_mask) if self.means else states[:, 0]
