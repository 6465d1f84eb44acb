"""RoBERTa and XLM-RoBERTa, and jina-reranker-v2, which is XLM-RoBERTa with other names for its weights.

Source of those names: jinaai/jina-reranker-v2-base-multilingual, modeling_xlm_roberta.py, embedding.py and
convert_roberta_weights_to_flash.py, which makes such weights from XLM-RoBERTa's: query, key and value are rows of one
matrix, in this order, and the rest is renamed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import RobertaForSequenceClassification, XLMRobertaForSequenceClassification
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import Chunk, WeightConverter, WeightRenaming

from lychee_export.families.text_cross_encoder.bert import read_first

__all__ = ["FlashXLMRobertaForSequenceClassification", "RobertaEncoder"]


class FlashXLMRobertaForSequenceClassification(XLMRobertaForSequenceClassification):  # type: ignore[no-untyped-call]
    """XLM-RoBERTa whose weights have the names of jina-reranker-v2; transformers renames and splits them at loading."""


class RobertaEncoder(nn.Module):
    """Encode pairs with RoBERTa or XLM-RoBERTa, whose positions begin after the padding token's id.

    Args:
        model: The transformers model; its weights are shared, not copied.
    """

    def __init__(self, model: RobertaForSequenceClassification | XLMRobertaForSequenceClassification) -> None:
        super().__init__()
        self.embeddings, self.encoder = model.roberta.embeddings, model.roberta.encoder
        self.first_position = int(model.roberta.embeddings.padding_idx) + 1

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """See `BertEncoder.forward`."""
        places = torch.arange(input_ids.shape[1], device=input_ids.device)[None] + self.first_position
        positions = torch.where(attention_mask > 0, places, self.first_position - 1)
        hidden = self.embeddings(
            input_ids=input_ids, token_type_ids=torch.zeros_like(input_ids), position_ids=positions
        )
        return read_first(self.encoder.layer, hidden, attention_mask)


register_checkpoint_conversion_mapping(
    FlashXLMRobertaForSequenceClassification.__name__,
    [
        WeightRenaming(r"emb_ln", r"embeddings.LayerNorm"),
        WeightRenaming(r"encoder.layers", r"encoder.layer"),
        WeightRenaming(r"mixer.out_proj", r"attention.output.dense"),
        WeightRenaming(r"norm1", r"attention.output.LayerNorm"),
        WeightRenaming(r"mlp.fc1", r"intermediate.dense"),
        WeightRenaming(r"mlp.fc2", r"output.dense"),
        WeightRenaming(r"norm2", r"output.LayerNorm"),
        WeightConverter(
            source_patterns="mixer.Wqkv",
            target_patterns=["attention.self.query", "attention.self.key", "attention.self.value"],
            operations=[Chunk(dim=0)],
        ),
    ],
    overwrite=True,
)
