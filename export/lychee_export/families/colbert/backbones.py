"""The models that make a state of every token: BERT, ModernBERT and jina's XLM-RoBERTa with rotary positions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    BertModel,
    BertPreTrainedModel,
    JinaEmbeddingsV3Model,
    JinaEmbeddingsV3PreTrainedModel,
    ModernBertModel,
    ModernBertPreTrainedModel,
    PreTrainedModel,
)
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping

from lychee_export.families.attention import attention_bias
from lychee_export.families.modernbert import ModernBertStates
from lychee_export.families.rotary import rotary_angles

__all__ = ["BACKBONES", "Backbone", "RotaryXLMRoberta"]


class _Bert(BertModel):  # type: ignore[no-untyped-call]
    """BERT without a pooler, which nothing reads here and some checkpoints lack."""

    def __init__(self, config: Any) -> None:
        super().__init__(config, add_pooling_layer=False)


class RotaryXLMRoberta(JinaEmbeddingsV3Model):  # type: ignore[no-untyped-call]
    """jina's XLM-RoBERTa with rotary positions, without a pooler either.

    Its weights have the names of jina's own code; transformers renames and splits them at loading.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config, add_pooling_layer=False)


class _BertStates(nn.Module):
    """See `ModernBertStates`; learned positions."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.embeddings, self.encoder = model.embeddings, model.encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        types = torch.zeros_like(input_ids)
        hidden = self.embeddings(input_ids=input_ids, token_type_ids=types, position_ids=positions)
        bias = attention_bias(attention_mask, self.embeddings.word_embeddings.weight.dtype)
        states: Tensor = self.encoder(hidden, attention_mask=bias).last_hidden_state
        return states


class _JinaStates(nn.Module):
    """See `ModernBertStates`; rotary positions, and every layer sees all tokens."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.embeddings, self.layers = model.embeddings, model.layers
        # A plain attribute, not a buffer: it stays as it is when the module becomes float16.
        self.frequencies = model.rotary_emb.inv_freq.detach().clone()
        self.scale = float(model.rotary_emb.attention_scaling)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden: Tensor = self.embeddings(input_ids=input_ids, token_type_ids=torch.zeros_like(input_ids))
        dtype = self.embeddings.word_embeddings.weight.dtype
        bias = attention_bias(attention_mask, dtype)
        cosine, sine = rotary_angles(input_ids, self.frequencies, self.scale)
        angles = cosine.to(dtype), sine.to(dtype)
        for layer in self.layers:
            hidden = layer(hidden, attention_mask=bias, position_embeddings=angles)
        return hidden


_CONVERSION = get_checkpoint_conversion_mapping("jina_embeddings_v3")  # type: ignore[no-untyped-call]
register_checkpoint_conversion_mapping(RotaryXLMRoberta.__name__, _CONVERSION, overwrite=True)


@dataclass(frozen=True)
class Backbone:
    """One architecture.

    Args:
        architecture: The name of its class in transformers.
        model_class: That class, without a pooler.
        base_class: What transformers' classes of this architecture have in common.
        make_states: Makes a module of a model that maps ids and mask to the states of all tokens.
    """

    architecture: str
    model_class: type[PreTrainedModel]
    base_class: type[PreTrainedModel]
    make_states: Callable[[Any], nn.Module]


BACKBONES = {
    "bert": Backbone("BertModel", _Bert, BertPreTrainedModel, _BertStates),
    "jina_embeddings_v3": Backbone(
        "JinaEmbeddingsV3Model", RotaryXLMRoberta, JinaEmbeddingsV3PreTrainedModel, _JinaStates
    ),
    "modernbert": Backbone("ModernBertModel", ModernBertModel, ModernBertPreTrainedModel, ModernBertStates),
}
"""By ``model_type`` in config.json, as `checkpoint.authors_code` says it."""
