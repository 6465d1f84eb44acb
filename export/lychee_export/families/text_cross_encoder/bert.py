"""BERT: token types tell the query from the document."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import BertForSequenceClassification
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.bert.modeling_bert import eager_attention_forward

from lychee_export.families.attention import attention_bias

__all__ = ["BertEncoder", "find_token_types", "read_first"]


class BertEncoder(nn.Module):
    """Encode pairs with BERT.

    Args:
        model: The transformers model; its weights are shared, not copied.
        separator: The id of the token between query and document. None where every token has the type 0.
    """

    def __init__(self, model: BertForSequenceClassification, separator: int | None) -> None:
        super().__init__()
        self.embeddings, self.encoder = model.bert.embeddings, model.bert.encoder
        self.separator = separator

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode pairs.

        Args:
            input_ids: int64, (batch_size, sequence_length).
            attention_mask: int64, (batch_size, sequence_length), 1 for a token, 0 for padding.

        Returns:
            The states of the first tokens, float32, (batch_size, hidden_size).
        """
        types = find_token_types(input_ids, self.separator)
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        hidden = self.embeddings(input_ids=input_ids, token_type_ids=types, position_ids=positions)
        bias = attention_bias(attention_mask, self.embeddings.word_embeddings.weight.dtype)
        return read_first(self.encoder.layer, hidden, bias)


def read_first(layers: nn.ModuleList, hidden: Tensor, bias: Tensor) -> Tensor:
    """Run BERT's layers, the last one for the first token alone: nobody reads what it makes of the others.

    Args:
        layers: Layers of transformers' BERT or RoBERTa.
        hidden: The embedded tokens, (batch_size, sequence_length, hidden_size).
        bias: What is added to attention scores, (batch_size, 1, sequence_length, sequence_length).

    Returns:
        The states of the first tokens, float32, (batch_size, hidden_size).
    """
    for layer in layers[:-1]:
        hidden = layer(hidden, attention_mask=bias)
    last, first = cast(Any, layers[-1]), hidden[:, :1]
    attention = last.attention.self

    def split(states: Tensor) -> Tensor:
        return states.reshape(*states.shape[:2], attention.num_attention_heads, -1).transpose(1, 2)

    attend = ALL_ATTENTION_FUNCTIONS.get_interface(attention.config._attn_implementation, eager_attention_forward)
    query, key, value = split(attention.query(first)), split(attention.key(hidden)), split(attention.value(hidden))
    context, _ = attend(attention, query, key, value, bias[:, :, :1], scaling=attention.scaling)
    first = last.attention.output(context.flatten(2), first)  # (batch_size, 1, hidden_size)
    states: Tensor = last.output(last.intermediate(first), first)
    return states[:, 0].float()


def find_token_types(input_ids: Tensor, separator: int | None) -> Tensor:
    """Return 0 up to the first separator and 1 after it, or zeros alone: int64, (batch_size, sequence_length)."""
    if separator is None:
        return torch.zeros_like(input_ids)
    separators = (input_ids == separator).to(torch.int64)
    return (separators.cumsum(1) - separators > 0).to(torch.int64)
