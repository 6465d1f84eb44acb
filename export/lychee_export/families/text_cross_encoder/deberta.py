"""DeBERTa v2 and v3: attention reads contents and distances apart."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import DebertaV2ForSequenceClassification
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from lychee_export.families.text_cross_encoder.bert import find_token_types

__all__ = ["DebertaEncoder"]


class DebertaEncoder(nn.Module):
    """Encode pairs with DeBERTa.

    Args:
        model: The transformers model; its weights are shared, not copied.
        separator: The id of the token between query and document. None where every token has the type 0.
    """

    buckets: Tensor

    def __init__(self, model: DebertaV2ForSequenceClassification, separator: int | None) -> None:
        super().__init__()
        self.embeddings = model.deberta.embeddings
        self.encoder: Any = model.deberta.encoder
        self.separator = separator
        self.longest = int(model.config.max_position_embeddings)
        # A logarithm that is rounded up falls on another side from runtime to runtime, so it is taken here.
        distances = torch.arange(1 - self.longest, self.longest)
        spread = self.encoder.position_buckets, self.encoder.max_relative_positions
        if min(spread) > 0:
            distances = make_log_bucket_position(distances, *spread).to(torch.int64)
        self.register_buffer("buckets", distances, persistent=False)  # (2 * longest - 1,)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """See `BertEncoder.forward`."""
        types = find_token_types(input_ids, self.separator)
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        hidden = self.embeddings(
            input_ids=input_ids, token_type_ids=types, position_ids=places[None], mask=attention_mask
        )
        seen = (attention_mask > 0)[:, None, None, :]
        distances = self.buckets[places[:, None] - places[None, :] + self.longest - 1][None]
        embedded = self.encoder.get_rel_embedding()
        for layer in self.encoder.layer:
            hidden, _ = layer(hidden, seen, relative_pos=distances, rel_embeddings=embedded)
        return hidden[:, 0].float()  # type: ignore[no-any-return]
