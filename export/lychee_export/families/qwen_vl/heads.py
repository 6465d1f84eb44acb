"""Scoring heads: two label tokens of ``lm_head``, or jina-reranker-m0's layers."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming

from lychee_export.errors import CheckpointError
from lychee_export.families.qwen_vl.template import Labels

__all__ = ["JinaVLForRanking", "LabelHead", "ScoreHead", "find_label_ids"]


class JinaVLForRanking(Qwen2VLForConditionalGeneration):  # type: ignore[no-untyped-call]
    """A Qwen2-VL with two layers in the place of ``lm_head``; its logits are the states after the final norm.

    Source: the class of this name in jinaai/jina-reranker-m0, modeling.py.
    """

    def __init__(self, config: Qwen2VLConfig) -> None:
        super().__init__(config)
        width = int(cast(Any, config.text_config).hidden_size)
        self.lm_head = nn.Identity()
        self._tied_weights_keys = {}
        self.score = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
        self.post_init()  # type: ignore[no-untyped-call]


register_checkpoint_conversion_mapping(
    JinaVLForRanking.__name__,
    [
        *get_checkpoint_conversion_mapping(Qwen2VLForConditionalGeneration.__name__),  # type: ignore[no-untyped-call]
        # vLLM's names for the same layers.
        WeightRenaming(r"^score\.dense\.", "score.0."),
        WeightRenaming(r"^score\.out_proj\.", "score.2."),
    ],
    overwrite=True,
)


class LabelHead(nn.Module):
    """Compare two answers: sigmoid of the difference of their logits is the softmax over the two.

    Args:
        lm_head: The weights of all tokens, (vocabulary, embedding_dim).
        positive_id: The token of the answer for a relevant document.
        negative_id: The token of the other answer.
    """

    def __init__(self, lm_head: Tensor, positive_id: int, negative_id: int) -> None:
        super().__init__()
        rows = lm_head.detach()
        self.weight = nn.Buffer((rows[positive_id] - rows[negative_id])[None])  # (1, embedding_dim)

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Score pairs.

        Args:
            hidden: float32, (batch_size, embedding_dim).

        Returns:
            relevance_score, float32, (batch_size, 1), in [0, 1]; logits, the same before the sigmoid, unbounded.
        """
        logits = functional.linear(hidden, self.weight.float())
        return torch.sigmoid(logits), logits


class ScoreHead(nn.Module):
    """Score by layers of the checkpoint.

    Args:
        score: The layers Linear, ReLU, Linear; they are shared, not copied.
        bias: The constant that is added to the logit.
    """

    def __init__(self, score: nn.Sequential, bias: float) -> None:
        super().__init__()
        self.score = score
        self.bias = bias

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Score pairs.

        Args:
            hidden: float32, (batch_size, embedding_dim).

        Returns:
            relevance_score, float32, (batch_size, 1), in [0, 1]; logits, the same before the sigmoid, unbounded.
        """
        logits = self.score(hidden.to(cast(nn.Linear, self.score[0]).weight.dtype)).float() + self.bias
        return torch.sigmoid(logits), logits


def find_label_ids(tokenizer: Any, labels: Labels) -> tuple[int, int]:
    """Look the labels' token ids up.

    Raises:
        CheckpointError: A label is not one token.
    """
    ids = []
    for label in (labels.positive, labels.negative):
        tokens = tokenizer.tokenize(label, add_special_tokens=False)
        if len(tokens) != 1:
            raise CheckpointError(
                f"the tokenizer splits the label {label!r} into {len(tokens)} tokens {tokens}; the score compares the "
                f"logits of {labels.positive!r} and {labels.negative!r}, which must be one token each. Give the "
                "checkpoint the tokenizer that it was trained with"
            )
        ids.append(int(tokenizer.convert_tokens_to_ids(tokens[0])))
    return ids[0], ids[1]
