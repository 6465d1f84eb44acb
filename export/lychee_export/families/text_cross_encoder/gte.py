"""gte-multilingual-reranker: rotary positions, gated layers, norms after the sums.

transformers has it as ``gte``, and splits the weights of the authors' code, ``qkv_proj`` and ``up_gate_proj``, itself.
"""

from __future__ import annotations

from torch import Tensor, nn
from transformers import GteForSequenceClassification

from lychee_export.families.attention import attention_bias
from lychee_export.families.rotary import rotary_angles
from lychee_export.families.text_cross_encoder.bert import find_token_types

__all__ = ["GteEncoder"]


class GteEncoder(nn.Module):
    """Encode pairs with GTE.

    Args:
        model: The transformers model; its weights are shared, not copied.
        separator: The id of the token between query and document. None where every token has the type 0.
    """

    def __init__(self, model: GteForSequenceClassification, separator: int | None) -> None:
        super().__init__()
        self.embeddings, self.layers = model.gte.embeddings, model.gte.layers
        self.separator = separator
        rotary = model.gte.rotary_emb
        # A plain attribute, not a buffer: it stays as it is when the module becomes float16.
        self.frequencies, self.scale = rotary.inv_freq.detach().clone(), float(rotary.attention_scaling)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """See `BertEncoder.forward`."""
        types = find_token_types(input_ids, self.separator)
        hidden = self.embeddings(input_ids=input_ids, token_type_ids=types)
        dtype = self.embeddings.word_embeddings.weight.dtype
        bias = attention_bias(attention_mask, dtype)
        cosine, sine = rotary_angles(input_ids, self.frequencies, self.scale)
        angles = cosine.to(dtype), sine.to(dtype)
        for layer in self.layers:
            hidden = layer(hidden, attention_mask=bias, position_embeddings=angles)
        return hidden[:, 0].float()  # type: ignore[no-any-return]
