"""The weights of Llama Nemotron VL, in classes of transformers; what is computed with them is elsewhere."""

from __future__ import annotations

from typing import Any

from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaModel,
    PreTrainedConfig,
    PreTrainedModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming

from lychee_export.families.nemotron.vision import MERGE_SIZE

__all__ = ["LlamaNemotronVLConfig", "LlamaNemotronVLForSequenceClassification"]


@strict
class LlamaNemotronVLConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """The two parts of config.json that transformers knows."""

    model_type = "llama_nemotron_vl_rerank"
    sub_configs = {"vision_config": SiglipVisionConfig, "llm_config": LlamaConfig}  # noqa: RUF012

    vision_config: dict[str, Any] | PreTrainedConfig | None = None
    llm_config: dict[str, Any] | PreTrainedConfig | None = None

    def __post_init__(self, **rest: Any) -> None:
        if isinstance(self.vision_config, dict):
            self.vision_config = SiglipVisionConfig(**self.vision_config | {"vision_use_head": False})
        if isinstance(self.llm_config, dict):
            self.llm_config = LlamaConfig(**self.llm_config)
        super().__post_init__(**rest)  # type: ignore[no-untyped-call]


class _Towers(nn.Module):
    """Vision tower, projector and language model, by the names that their weights have."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        vision_class: Any = SiglipVisionModel
        language_class: Any = LlamaModel
        merged, width = config.vision_config.hidden_size * MERGE_SIZE**2, config.llm_config.hidden_size
        self.vision_model = vision_class._from_config(config.vision_config)
        self.language_model = language_class._from_config(config.llm_config)
        self.mlp1 = nn.Sequential(nn.LayerNorm(merged), nn.Linear(merged, width), nn.GELU(), nn.Linear(width, width))


class LlamaNemotronVLForSequenceClassification(PreTrainedModel):  # type: ignore[no-untyped-call]
    """All weights of the reranker. It has no ``forward``: its parts are used by themselves."""

    config_class = LlamaNemotronVLConfig
    base_model_prefix = "model"

    def __init__(self, config: LlamaNemotronVLConfig) -> None:
        super().__init__(config)
        parts: Any = config
        self.model = _Towers(config)
        self.score = nn.Linear(parts.llm_config.hidden_size, 1, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]


# transformers 4 has one more level of names in the vision tower.
register_checkpoint_conversion_mapping(
    LlamaNemotronVLForSequenceClassification.__name__,
    [WeightRenaming(r"^model\.vision_model\.vision_model\.", "model.vision_model.")],
    overwrite=True,
)
