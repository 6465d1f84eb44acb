"""Tiny random checkpoints of CLIP and Chinese-CLIP."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from tokenizers import pre_tokenizers
from transformers import ChineseCLIPConfig, ChineseCLIPModel, CLIPConfig, CLIPModel

from checkpoints.bert_tokenizer import write_bert_tokenizer
from checkpoints.random_weights import randomize

_MERGES = (("t", "h"), ("th", "e</w>"), ("c", "a"), ("ca", "t</w>"), ("o", "n</w>"), ("i", "n"), ("in", "g</w>"))
_LEGACY_EOS_TOKEN_ID = 2
_LOGIT_SCALE = math.log(4)
_TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
_SHALLOW = _TOWER | {"num_hidden_layers": 1}


def write_clip_tokenizer(folder: Path) -> dict[str, int]:
    """Write vocab.json, merges.txt and tokenizer_config.json; return the vocabulary, the end token last."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in _MERGES)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in _MERGES)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return vocabulary


def build_clip(folder: Path, *, legacy_eos: bool = False, image_size: int = 32) -> Path:
    """Write a CLIP checkpoint with the file layout and the preprocessor_config.json of openai/clip-vit-base-patch32."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = write_clip_tokenizer(folder)
    eos = vocabulary["<|endoftext|>"]
    config = CLIPConfig(
        text_config=_TOWER
        | {
            "vocab_size": len(vocabulary),
            "max_position_embeddings": 77,
            "bos_token_id": vocabulary["<|startoftext|>"],
            "eos_token_id": _LEGACY_EOS_TOKEN_ID if legacy_eos else eos,
            "pad_token_id": eos,
            "projection_dim": 24,
        },
        vision_config=_TOWER | {"image_size": image_size, "patch_size": 8, "projection_dim": 24},
        projection_dim=24,
        logit_scale_init_value=_LOGIT_SCALE,
    )
    model = CLIPModel(config)
    randomize(model)
    model.save_pretrained(folder)
    _write_json(
        folder / "preprocessor_config.json",
        {
            "crop_size": image_size,
            "do_center_crop": True,
            "do_normalize": True,
            "do_resize": True,
            "feature_extractor_type": "CLIPFeatureExtractor",
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "resample": 3,
            "size": image_size,
        },
    )
    return folder


def build_chinese_clip(folder: Path) -> Path:
    """Write a Chinese-CLIP checkpoint in several shards, as OFA-Sys/chinese-clip-vit-base-patch16 has its files."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab_size = write_bert_tokenizer(folder, model_max_length=52)
    config = ChineseCLIPConfig(
        text_config=_SHALLOW | {"vocab_size": vocab_size, "max_position_embeddings": 64, "type_vocab_size": 2},
        vision_config=_SHALLOW | {"image_size": 24, "patch_size": 8, "projection_dim": 16},
        projection_dim=16,
        logit_scale_init_value=_LOGIT_SCALE,
    )
    model = ChineseCLIPModel(config)
    randomize(model, seed=1)
    model.save_pretrained(folder, max_shard_size="60KB")
    _write_json(
        folder / "preprocessor_config.json",
        {
            "crop_size": {"height": 24, "width": 24},
            "do_center_crop": False,
            "do_normalize": True,
            "do_resize": True,
            "feature_extractor_type": "ChineseCLIPFeatureExtractor",
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "resample": 3,
            "size": {"height": 24, "width": 24},
        },
    )
    return folder


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2))
