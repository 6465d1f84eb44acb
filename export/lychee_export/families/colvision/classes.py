"""What a checkpoint holds, and the classes that transformers lacks: backbones with colpali-engine's layer on them.

Source: colpali-engine 0.3.18, colpali_engine/models/: ColQwen2, ColQwen2_5, ColPali.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PaliGemmaModel, Qwen2_5_VLModel, Qwen2VLModel
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming

__all__ = ["ColPali", "ColQwen2", "ColQwen2_5", "Loaded", "unwrap"]

_DIM = 128
"""Of every vector, as colpali-engine has it."""


@dataclass(frozen=True)
class Loaded:
    """What a checkpoint holds, by the same names in both layouts.

    Args:
        backbone: The language model with its vision tower, without ``lm_head``.
        config: The backbone's configuration.
        projection: The linear layer that makes vectors of its states.
    """

    backbone: Any
    config: Any
    projection: nn.Linear


def unwrap(model: Any) -> Loaded:
    """Return what a model of transformers' own classes holds, or of those below."""
    if hasattr(model, "vlm"):
        return Loaded(model.vlm, model.config.vlm_config, model.embedding_proj_layer)
    return Loaded(model, model.config, model.custom_text_proj)


def _make_retriever(name: str, base: type[Any], renamings: Mapping[str, str]) -> type[Any]:
    """Make the class of a backbone without ``lm_head`` and a linear layer.

    Args:
        name: Its name in ``architectures``.
        base: The backbone's class.
        renamings: Today's names of the weights, by patterns of those that files have.
    """

    def initialize(self: Any, config: Any) -> None:
        base.__init__(self, config)
        self.custom_text_proj = nn.Linear(config.text_config.hidden_size, _DIM)
        self.post_init()

    retriever = type(name, (base,), {"__init__": initialize, "__module__": __name__})
    known: Any = get_checkpoint_conversion_mapping
    register_checkpoint_conversion_mapping(
        name,
        [*(known(base.__name__) or ()), *(WeightRenaming(old, new) for old, new in renamings.items())],
        overwrite=True,
    )
    return retriever


# transformers 4 named the language models' weights otherwise, and so do the published checkpoints and their adapters.
_QWEN = {
    r"^model\.(layers|embed_tokens|norm)\.": r"language_model.\1.",
    r"^model\.(language_model|visual)\.": r"\1.",
}
_PALIGEMMA = {
    r"^model\.language_model\.model\.": "language_model.",
    r"^model\.(vision_tower|multi_modal_projector)\.": r"\1.",
    r"^model\.model\.(language_model|vision_tower|multi_modal_projector)\.": r"\1.",
}
ColQwen2 = _make_retriever("ColQwen2", Qwen2VLModel, _QWEN)
ColQwen2_5 = _make_retriever("ColQwen2_5", Qwen2_5_VLModel, _QWEN)
ColPali = _make_retriever("ColPali", PaliGemmaModel, _PALIGEMMA)
