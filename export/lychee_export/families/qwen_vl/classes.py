"""Classes that transformers lacks: Qwen-VL with jina-reranker-m0's layers or a classifier's in lm_head's place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import nn
from transformers import (
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLForConditionalGeneration,
)
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming

__all__ = ["CLASSIFIERS", "JinaVLForRanking"]


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


def _rename_weights(model_class: type[Any], base: type[Any], renamings: Mapping[str, str]) -> None:
    """Register what other names the weights of a class have: those of its base, and some of its head's."""
    known: Any = get_checkpoint_conversion_mapping
    register_checkpoint_conversion_mapping(
        model_class.__name__,
        [*(known(base.__name__) or ()), *(WeightRenaming(old, new) for old, new in renamings.items())],
        overwrite=True,
    )


# vLLM's names for the same layers.
_rename_weights(
    JinaVLForRanking,
    Qwen2VLForConditionalGeneration,
    {r"^score\.dense\.": "score.0.", r"^score\.out_proj\.": "score.2."},
)


def _make_classifier(base: type[Any]) -> type[Any]:
    """Make the class that ranks with ``score``, one linear layer in the place of ``lm_head``.

    transformers has no such class. vLLM and ms-swift use the name, and give ``score`` one output, or two; converted
    from a generative reranker it is the difference of two rows of ``lm_head``.
    Source: vLLM 0.13, model_executor/models/adapters.py, as_seq_cls_model; ms-swift 3, swift/llm/model/patcher.py.
    """
    name = base.__name__.replace("ForConditionalGeneration", "ForSequenceClassification")

    def initialize(self: Any, config: Any) -> None:
        base.__init__(self, config)
        self.lm_head = nn.Identity()
        self._tied_weights_keys = {}
        self.score = nn.Linear(config.text_config.hidden_size, config.num_labels)
        self.post_init()

    members = {"__init__": initialize, "__module__": __name__, "_keys_to_ignore_on_load_missing": [r"^score\.bias$"]}
    classifier = type(name, (base,), members)
    _rename_weights(classifier, base, {r"^(model\.|language_model\.)+score\.": "score.", r"^classifier\.": "score."})
    return classifier


CLASSIFIERS = {
    classifier.__name__: classifier
    for classifier in map(
        _make_classifier,
        (Qwen2VLForConditionalGeneration, Qwen2_5_VLForConditionalGeneration, Qwen3VLForConditionalGeneration),
    )
}
"""By the value of ``architectures`` in config.json."""
