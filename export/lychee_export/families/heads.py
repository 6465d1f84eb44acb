"""Heads of language models that rank: the logits of two answers, or a layer with a score of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lychee_export.errors import CheckpointError
from lychee_export.families.template import Labels

__all__ = ["LabelHead", "ScoreHead", "count_labels", "find_label_ids", "find_positive_label", "make_score_head"]

_DEFAULT_LABELS = 2
"""Where config.json names none, as transformers has it."""
_POSITIVE_NAMES = frozenset({"yes", "true", "relevant", "positive", "1"})


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
        score: One linear layer, or Linear, ReLU, Linear, with one output; it is shared, not copied.
        bias: The constant that is added to the logit.
    """

    def __init__(self, score: nn.Module, bias: float) -> None:
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
        hidden = hidden.to(next(self.score.parameters()).dtype)
        # ReLU makes 0 of NaN on OpenVINO and CUDA, and so a plausible score: the last term is 0, or NaN where a state
        # is NaN or infinite.
        logits = self.score(hidden).float() + self.bias + 0 * hidden.float().sum(-1, keepdim=True)
        return torch.sigmoid(logits), logits


def make_score_head(score: nn.Module, bias: float, config: Any) -> ScoreHead:
    """Make the head of a model with a score: of two outputs the logit is their difference.

    Args:
        score: The checkpoint's layers.
        bias: The constant that is added to the logit.
        config: The checkpoint's configuration, which may name the labels.

    Raises:
        CheckpointError: There are more than two labels.
    """
    if not isinstance(score, nn.Linear) or score.out_features == 1:
        return ScoreHead(score, bias)
    if score.out_features != 2:
        raise CheckpointError(
            f"score has {score.out_features} labels ({', '.join(map(str, config.id2label.values()))}); a reranker has "
            "1, or 2 of which one means relevant"
        )
    positive = find_positive_label(config)
    difference = nn.Linear(score.in_features, 1, device=score.weight.device)
    with torch.no_grad():
        difference.weight.copy_(score.weight[positive] - score.weight[1 - positive])
        if score.bias is None:
            difference.bias.zero_()
        else:
            difference.bias.copy_(score.bias[positive] - score.bias[1 - positive])
    return ScoreHead(difference, bias)


def count_labels(config: Mapping[str, Any]) -> int:
    """Return how many labels a classifier has, by its config.json."""
    labels: int = config.get("num_labels") or len(config.get("id2label") or range(_DEFAULT_LABELS))
    return labels


def find_positive_label(config: Any) -> int:
    """Say which of two labels means "relevant": the one that ``id2label`` names so, else the second.

    The second is what a conversion from the tokens "no" and "yes" gives.
    """
    return 0 if str(config.id2label.get(0)).lower() in _POSITIVE_NAMES else 1


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
