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
    """Run BERT's layers without padding, and the last one for the first token alone: nobody reads the others.

    All but attention treats each token by itself. So the tokens of all rows lie one after the other, and attention
    alone spreads them over the rows. In the places of padding stands some other token there, and has no weight.

    Args:
        layers: Layers of transformers' BERT or RoBERTa.
        hidden: The embedded tokens, (batch_size, sequence_length, hidden_size).
        attention_mask: int64, (batch_size, sequence_length), 1 for a token, 0 for padding; at least one token in a row.

    Returns:
        The states of the first tokens, float32, (batch_size, hidden_size).
    """
    rows, length, size = hidden.shape
    mask, bias = attention_mask.flatten(), attention_bias(attention_mask, hidden.dtype)
    (places,) = torch.nonzero(mask, as_tuple=True)  # (tokens,)
    tokens = hidden.reshape(rows * length, size).index_select(0, places)  # (tokens, hidden_size)
    counts = mask.cumsum(0)
    spread = counts - 1  # which token stands in a place, (batch_size * sequence_length,); no clamp: OpenVINO's is wrong
    starts = (counts - mask).reshape(rows, length)[:, 0]  # (batch_size,)

    def attend(layer: Any, query: Tensor, tokens: Tensor, bias: Tensor) -> Tensor:
        part = layer.attention.self

        def split(states: Tensor) -> Tensor:
            return states.reshape(rows, -1, part.num_attention_heads, part.attention_head_size).transpose(1, 2)

        key, value = (split(project(tokens).index_select(0, spread)) for project in (part.key, part.value))
        function = ALL_ATTENTION_FUNCTIONS.get_interface(part.config._attn_implementation, eager_attention_forward)
        context, _ = function(part, split(query), key, value, bias, scaling=part.scaling)
        joined: Tensor = context.reshape(-1, size)
        return joined

    def finish(layer: Any, context: Tensor, tokens: Tensor) -> Tensor:
        attended = layer.attention.output(context, tokens)
        states: Tensor = layer.output(layer.intermediate(attended), attended)
        return states

    for layer in cast(Any, layers[:-1]):
        query = layer.attention.self.query(tokens).index_select(0, spread)
        tokens = finish(layer, attend(layer, query, tokens, bias).index_select(0, places), tokens)
    last, first = cast(Any, layers[-1]), tokens.index_select(0, starts)
    context = attend(last, last.attention.self.query(first), tokens, bias[:, :, :1])
    return finish(last, context, first).float()


def find_token_types(input_ids: Tensor, separator: int | None) -> Tensor:
    """Return 0 up to the first separator and 1 after it, or zeros alone: int64, (batch_size, sequence_length)."""
    if separator is None:
        return torch.zeros_like(input_ids)
    separators = (input_ids == separator).to(torch.int64)
    return (separators.cumsum(1) - separators > 0).to(torch.int64)
