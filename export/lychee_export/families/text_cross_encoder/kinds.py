"""The architectures, and how each is split into encoder and head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import (
    BertForSequenceClassification,
    DebertaV2ForSequenceClassification,
    GteForSequenceClassification,
    ModernBertForSequenceClassification,
    PreTrainedModel,
    RobertaForSequenceClassification,
    XLMRobertaForSequenceClassification,
)
from transformers.activations import ACT2FN

from lychee_export.checkpoint.authors_code import FLASH_XLM_ROBERTA
from lychee_export.families.text_cross_encoder.bert import BertEncoder
from lychee_export.families.text_cross_encoder.deberta import DebertaEncoder
from lychee_export.families.text_cross_encoder.gte import GteEncoder
from lychee_export.families.text_cross_encoder.head import ScoringHead
from lychee_export.families.text_cross_encoder.modernbert import ModernBertEncoder
from lychee_export.families.text_cross_encoder.roberta import FlashXLMRobertaForSequenceClassification, RobertaEncoder
from lychee_export.families.text_format import FINE_BUCKETS, PACKED_BUCKETS

__all__ = ["KINDS", "Kind"]


@dataclass(frozen=True)
class Kind:
    """One architecture: the class of transformers, and how it is split into modules.

    Args:
        model_class: The class.
        make_encoder: Makes the encoder of a model, given the separator's id if its token types differ.
        make_head: Makes the head.
        skipped_positions: Tells how many of the model's positions no token has.
        file_alone: Whether tokenizer.json counts as it is, because transformers' class would change it.
        buckets: The lengths to which the client pads.
    """

    model_class: type[PreTrainedModel]
    make_encoder: Callable[[Any, int | None], nn.Module]
    make_head: Callable[[Any], nn.Module]
    skipped_positions: Callable[[Any], int] = lambda _: 0
    file_alone: bool = False
    buckets: Sequence[int] = FINE_BUCKETS


def _pooled(model: Any, pooler: Any) -> ScoringHead:
    return ScoringHead(nn.Sequential(pooler.dense, nn.Tanh()), model.classifier)


def _head_of_deberta(model: Any) -> ScoringHead:
    activation = ACT2FN[model.config.pooler_hidden_act]
    return ScoringHead(nn.Sequential(model.pooler.dense, activation), model.classifier)


def _head_of_roberta(model: Any) -> ScoringHead:
    return ScoringHead(nn.Sequential(model.classifier.dense, nn.Tanh()), model.classifier.out_proj)


def _roberta(model_class: type[PreTrainedModel]) -> Kind:
    return Kind(
        model_class,
        lambda model, _: RobertaEncoder(model),
        _head_of_roberta,
        lambda config: config.pad_token_id + 1,
        buckets=PACKED_BUCKETS,
    )


KINDS = {
    "bert": Kind(
        BertForSequenceClassification,
        BertEncoder,
        lambda model: _pooled(model, model.bert.pooler),
        buckets=PACKED_BUCKETS,
    ),
    "deberta-v2": Kind(DebertaV2ForSequenceClassification, DebertaEncoder, _head_of_deberta, file_alone=True),
    "gte": Kind(GteForSequenceClassification, GteEncoder, lambda model: _pooled(model, model.gte.pooler)),
    "modernbert": Kind(
        ModernBertForSequenceClassification,
        lambda model, _: ModernBertEncoder(model),
        lambda model: ScoringHead(model.head, model.classifier),
    ),
    "roberta": _roberta(RobertaForSequenceClassification),
    "xlm-roberta": _roberta(XLMRobertaForSequenceClassification),
    FLASH_XLM_ROBERTA: _roberta(FlashXLMRobertaForSequenceClassification),
}
"""By ``model_type`` in config.json, as `checkpoint.authors_code` says it."""
