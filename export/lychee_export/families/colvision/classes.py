"""Classes that transformers lacks: Qwen2-VL and Qwen2.5-VL with the layer that colpali-engine puts on them."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import Qwen2_5_VLModel, Qwen2VLModel
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming

__all__ = ["ColQwen2", "ColQwen2_5"]

_DIM = 128
"""Of every vector, as colpali-engine has it."""


class ColQwen2(Qwen2VLModel):  # type: ignore[no-untyped-call]
    """A Qwen2-VL without ``lm_head``, and the linear layer. Source: colpali-engine 0.3.18, models/qwen2/colqwen2."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.custom_text_proj = nn.Linear(config.text_config.hidden_size, _DIM)
        self.post_init()  # type: ignore[no-untyped-call]


class ColQwen2_5(Qwen2_5_VLModel):  # type: ignore[no-untyped-call]  # noqa: N801
    """The same of a Qwen2.5-VL. Source: colpali-engine 0.3.18, models/qwen2_5/colqwen2_5."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.custom_text_proj = nn.Linear(config.text_config.hidden_size, _DIM)
        self.post_init()  # type: ignore[no-untyped-call]


# transformers 4 named the language model's weights otherwise, and so do the published checkpoints and their adapters.
_known: Any = get_checkpoint_conversion_mapping
for _class, _base in ((ColQwen2, Qwen2VLModel), (ColQwen2_5, Qwen2_5_VLModel)):
    register_checkpoint_conversion_mapping(
        _class.__name__,
        [
            *(_known(_base.__name__) or ()),
            WeightRenaming(r"^model\.(layers|embed_tokens|norm)\.", r"language_model.\1."),
            WeightRenaming(r"^model\.(language_model|visual)\.", r"\1."),
        ],
        overwrite=True,
    )
