"""Tiny random ColQwen2 and ColQwen2.5 checkpoints, in the layouts of transformers and of colpali-engine.

Sources: transformers 5.23.0, conversion_mapping.py, for the names of published weights; colpali-engine 0.3.18,
models/qwen2_5/colqwen2_5, for those of the other layout.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import ColQwen2Config, ColQwen2ForRetrieval, Qwen2_5_VLConfig, Qwen2_5_VLModel, Qwen2VLConfig

from checkpoints.qwen_vl import (
    QWEN2_5_VISION,
    QWEN2_VISION,
    build_tokenizer,
    special_ids,
    text_config,
    write_preprocessor,
)
from checkpoints.qwen_vl_variants import build_adapter
from checkpoints.random_weights import randomize

_DIM = 128
_PREFIX = re.compile(r"^vlm\.(model\.)?")
_MAX_PIXELS = 602112
"""Of the published ones: 768 tokens."""


def build_colqwen2(folder: Path) -> Path:
    """Write a checkpoint like vidore/colqwen2-v1.0-hf: transformers' own class."""
    tokenizer = build_tokenizer(folder)
    backbone = Qwen2VLConfig(
        text_config=text_config(tokenizer, mrope_section=[2, 3, 3]),
        vision_config=QWEN2_VISION,
        **special_ids(tokenizer),
    )
    model = ColQwen2ForRetrieval(ColQwen2Config(vlm_config=backbone.to_dict(), embedding_dim=_DIM)).eval()
    randomize(model, seed=21, gain=1.5)
    _unscale_norms(model)
    model.save_pretrained(folder)
    path = folder / "model.safetensors"
    weights = load_file(path)
    save_file({_PREFIX.sub("vlm.model.", name): each for name, each in weights.items()}, path, {"format": "pt"})
    write_preprocessor(folder, min_pixels=3136, max_pixels=_MAX_PIXELS, patch_size=14)
    told = {"processor_class": "ColQwen2Processor", "query_prefix": "Query: ", "visual_prompt_prefix": None}
    (folder / "processor_config.json").write_text(json.dumps(told, indent=2))
    return folder


def build_colqwen2_5(folder: Path) -> Path:
    """Write a checkpoint like vidore/colqwen2.5-base: colpali-engine's class, named as transformers 4 named weights."""
    tokenizer = build_tokenizer(folder)
    config = Qwen2_5_VLConfig(
        text_config=text_config(tokenizer, mrope_section=[2, 3, 3]),
        vision_config=QWEN2_5_VISION,
        **special_ids(tokenizer),
    )
    parts = {"model": Qwen2_5_VLModel(config), "custom_text_proj": torch.nn.Linear(64, _DIM)}
    model = torch.nn.ModuleDict(parts).eval()
    randomize(model, seed=22, gain=1.5)
    _unscale_norms(model)
    weights = {
        name.replace("model.language_model.", "model.").replace("model.visual.", "visual."): each.contiguous()
        for name, each in model.state_dict().items()
    }
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config.architectures = ["ColQwen2_5"]
    config.save_pretrained(folder)
    write_preprocessor(folder, min_pixels=3136, max_pixels=_MAX_PIXELS, patch_size=14)
    return folder


def build_colqwen2_5_adapter(folder: Path) -> Path:
    """Write a checkpoint like vidore/colqwen2.5-v0.2, an adapter, and beside its folder the base that it names."""
    base = build_colqwen2_5(folder.parent / f"{folder.name}-base")
    return build_adapter(folder, base, "vidore/colqwen2.5-base", ("custom_text_proj",))


def _unscale_norms(model: Any) -> None:
    """Keep the scales of norms near one where their names do not say what they are."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("ln_q.weight"):
                parameter.add_(1.0)
