"""The published Qwen-VL rerankers without their weights: real sizes, a tiny tokenizer.

Source: the config.json of lychee-rerank-mm's base models Qwen2.5-VL-7B and -3B, of Qwen3-VL-2B and -8B, and of
Qwen2-VL-2B, on which jina-reranker-m0 is built.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from checkpoints.qwen_vl import build_tokenizer

__all__ = ["PUBLISHED", "write_published"]

_VISION_2_5 = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "patch_size": 14,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
_VISION_2 = {"depth": 32, "embed_dim": 1280, "num_heads": 16, "mlp_ratio": 4, "patch_size": 14}
_VISION_3 = {"patch_size": 16, "num_heads": 16, "num_position_embeddings": 2304}
_TEXT = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")


def _text(*sizes: int, **more: Any) -> dict[str, Any]:
    return dict(zip(_TEXT, sizes, strict=True)) | more


def _qwen2(architecture: str) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "model_type": "qwen2_vl",
        "text_config": _text(1536, 8960, 28, 12, 2, vocab_size=151936),
        "vision_config": _VISION_2 | {"hidden_size": 1536},
    }


def _qwen2_5(text: dict[str, Any]) -> dict[str, Any]:
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "text_config": text,
        "vision_config": _VISION_2_5 | {"out_hidden_size": text["hidden_size"]},
    }


def _qwen3(text: dict[str, Any], **vision: Any) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "text_config": text | {"vocab_size": 151936, "head_dim": 128},
        "vision_config": _VISION_3 | vision | {"out_hidden_size": text["hidden_size"]},
    }


PUBLISHED: dict[str, dict[str, Any]] = {
    "lychee-7B": _qwen2_5(_text(3584, 18944, 28, 28, 4, vocab_size=152064)),
    "lychee-3B": _qwen2_5(_text(2048, 11008, 36, 16, 2, vocab_size=151936)),
    "Qwen3-VL-Reranker-2B": _qwen3(
        _text(2048, 6144, 28, 16, 8),
        depth=24,
        hidden_size=1024,
        intermediate_size=4096,
        deepstack_visual_indexes=[5, 11, 17],
    ),
    "Qwen3-VL-Reranker-8B": _qwen3(
        _text(4096, 12288, 36, 32, 8),
        depth=27,
        hidden_size=1152,
        intermediate_size=4304,
        deepstack_visual_indexes=[8, 16, 24],
    ),
    "jina-reranker-m0": _qwen2("JinaVLForRanking"),
    "MonoQwen2-VL": _qwen2("Qwen2VLForConditionalGeneration"),
}
_HUB_NAMES = {"lychee-7B": "vec-ai/lychee-rerank-mm", "lychee-3B": "vec-ai/lychee-rerank-mm"}
_MAX_PIXELS = {"jina-reranker-m0": 602112, "Qwen3-VL-Reranker-2B": 16777216, "Qwen3-VL-Reranker-8B": 16777216}


def write_published(folder: Path, name: str) -> Path:
    """Write config.json, preprocessor_config.json and a tokenizer, for ``load_checkpoint(..., weights=False)``."""
    tokenizer = build_tokenizer(folder)
    config = json.loads(json.dumps(PUBLISHED[name]))
    config["_name_or_path"] = _HUB_NAMES.get(name, name)
    for token in ("image", "video"):
        config[f"{token}_token_id"] = tokenizer.convert_tokens_to_ids(f"<|{token}_pad|>")
    interleaved = config["model_type"] == "qwen3_vl"
    rope = {"rope_type": "default", "mrope_section": [24, 20, 20] if interleaved else [16, 24, 24]}
    config["text_config"] |= {
        "max_position_embeddings": 262144 if interleaved else 32768,
        "rope_parameters": rope | {"rope_theta": 5e6 if interleaved else 1e6, "mrope_interleaved": interleaved},
    }
    config["vision_config"] |= {"spatial_merge_size": 2, "temporal_patch_size": 2}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    size = {"min_pixels": 3136, "max_pixels": _MAX_PIXELS.get(name, 12845056)}
    preprocessor = size | {"merge_size": 2, "patch_size": config["vision_config"]["patch_size"]}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor), encoding="utf-8")
    return folder
