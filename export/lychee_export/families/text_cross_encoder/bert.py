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
        return read_first(self.encoder.layer, hidden, attention_mask)


def read_first(layers: nn.ModuleList, hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """Run BERT's layers over the tokens alone, without padding, and the last one for the first token alone.

    All but the attention is done for one token at a time, so the tokens of all rows lie one after the other; each
    attention spreads them over the rows again.

    Args:
        layers: Layers of transformers' BERT or RoBERTa.
        hidden: The embedded tokens, (batch_size, sequence_length, hidden_size).
        attention_mask: int64, (batch_size, sequence_length), 1 for a token, 0 for padding.

    Returns:
        The states of the first tokens, float32, (batch_size, hidden_size).
    """
    rows, length, size = hidden.shape
    bias = attention_bias(attention_mask, hidden.dtype)
    flat = attention_mask.flatten()
    (places,) = torch.nonzero(flat, as_tuple=True)  # (tokens,)
    spread = (flat.cumsum(0) - flat[:1]).reshape(rows, length)  # which token stands at a place; at padding any one
    tokens = hidden.reshape(rows * length, size).index_select(0, places)  # (tokens, hidden_size)
    for index, layer in enumerate(layers):
        attention, config = layer.attention.self, layer.attention.self.config
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(config._attn_implementation, eager_attention_forward)
        is_last = index == len(layers) - 1

        def split(states: Tensor, places: Tensor) -> Tensor:
            states = states.index_select(0, places.flatten()).reshape(*places.shape, attention.num_attention_heads, -1)
            return states.transpose(1, 2)  # (batch_size, heads, places, head_size)

        key, value = split(attention.key(tokens), spread), split(attention.value(tokens), spread)
        if is_last:
            tokens = tokens.index_select(0, spread[:, 0])
            query = attention.query(tokens).reshape(rows, 1, attention.num_attention_heads, -1).transpose(1, 2)
        else:
            query = split(attention.query(tokens), spread)
        context, _ = attend(
            attention, query, key, value, bias[:, :, :1] if is_last else bias, scaling=attention.scaling
        )
        context = context.reshape(-1, size) if is_last else context.reshape(rows * length, size).index_select(0, places)
        tokens = layer.attention.output(context, tokens)
        tokens = layer.output(layer.intermediate(tokens), tokens)
    return tokens.float()


def find_token_types(input_ids: Tensor, separator: int | None) -> Tensor:
    """Return 0 up to the first separator and 1 after it, or zeros alone: int64, (batch_size, sequence_length)."""
    if separator is None:
        return torch.zeros_like(input_ids)
    separators = (input_ids == separator).to(torch.int64)
    return (separators.cumsum(1) - separators > 0).to(torch.int64)
