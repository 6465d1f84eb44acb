"""ModernBERT: rotary positions, and most layers see only a window of tokens."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lychee_export.families.attention import attention_bias, local_bias
from lychee_export.families.rotary import rotary_angles

__all__ = ["ModernBertStates"]


class ModernBertStates(nn.Module):
    """Compute the states of all tokens.

    Args:
        model: A ``ModernBertModel``; its weights are shared, not copied.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.embeddings, self.layers, self.final_norm = model.embeddings, model.layers, model.final_norm
        self.window = int(model.config.sliding_window)
        rotary = model.rotary_emb
        # Plain attributes, not buffers: they stay as they are when the module becomes float16.
        self.frequencies = {
            kind: getattr(rotary, f"{kind}_inv_freq").detach().clone() for kind in sorted(set(model.config.layer_types))
        }
        self.scales = {kind: float(getattr(rotary, f"{kind}_attention_scaling")) for kind in self.frequencies}

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Compute the states.

        Args:
            input_ids: int64, (batch_size, sequence_length).
            attention_mask: int64, (batch_size, sequence_length), 1 for a token that the others read.

        Returns:
            The dtype of the weights, (batch_size, sequence_length, hidden_size).
        """
        hidden = self.embeddings(input_ids=input_ids)
        dtype = self.embeddings.tok_embeddings.weight.dtype
        full = attention_bias(attention_mask, dtype)
        masks = {"full_attention": full, "sliding_attention": local_bias(full, self.window)}
        angles = {
            kind: rotary_angles(input_ids, frequencies, self.scales[kind])
            for kind, frequencies in self.frequencies.items()
        }
        for layer in self.layers:
            kind = layer.attention_type
            hidden = layer(hidden, attention_mask=masks[kind], position_embeddings=angles[kind])
        states: Tensor = self.final_norm(hidden)
        return states
