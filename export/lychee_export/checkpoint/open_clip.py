"""open_clip's checkpoints in the terms of transformers' CLIP: settings, image preprocessing, names of the weights.

Only the plain towers are CLIP. Others (timm's and Hugging Face's towers, CoCa, SigLIP) have the same file names and
settings of their own: each is refused by the name of the setting.

Source: open_clip 3.3.0, model.py (CLIPVisionCfg, CLIPTextCfg), transformer.py and transform.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from lychee_export.errors import CheckpointError

__all__ = ["describe", "read_weights"]

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_RESAMPLES = {"bicubic": 3, "bilinear": 2, "random": 3}
_MODEL = {"embed_dim", "vision_cfg", "text_cfg"}
_TOWER = {"width", "layers"}
_PLAIN: Mapping[str, Mapping[str, Any]] = {
    "model_cfg": {"quick_gelu": None, "cast_dtype": None, "custom_text": None, "init_logit_scale": None},
    "vision_cfg": {
        "image_size": None,
        "patch_size": None,
        "head_width": None,
        "mlp_ratio": None,
        "patch_dropout": None,
    },
    "text_cfg": {
        "context_length": None,
        "vocab_size": None,
        "heads": None,
        "mlp_ratio": None,
        "hf_tokenizer_name": None,
        "tokenizer_kwargs": None,
        "pad_id": None,
        "pool_type": "argmax",
    },
}
"""The settings that CLIP has as well, and the one value that they may have; None: any."""

_LAYER_NAMES = (
    (r"^visual\.transformer\.resblocks\.", "vision_model.encoder.layers."),
    (r"^transformer\.resblocks\.", "text_model.encoder.layers."),
    (r"\.ln_([12])\.", r".layer_norm\1."),
    (r"\.attn\.out_proj\.", ".self_attn.out_proj."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)
_NAMES = {
    "logit_scale": "logit_scale",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "text_projection": "text_projection.weight",
    "text_projection.weight": "text_projection.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.proj": "visual_projection.weight",
}
_TRANSPOSED = frozenset({"text_projection", "visual.proj"})
"""open_clip multiplies by them from the right."""
_CAUSAL_MASK = "attn_mask"


def describe(path: Path, settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Write the files of transformers that say the same as open_clip_config.json.

    Args:
        path: The file, named in messages.
        settings: Its content.

    Returns:
        The contents of config.json and preprocessor_config.json, by these names.

    Raises:
        CheckpointError: The model is not CLIP, or a setting is missing.
    """
    try:
        model = settings["model_cfg"]
        vision, text = model["vision_cfg"], model["text_cfg"]
        _check_plain(path, {"model_cfg": model, "vision_cfg": vision, "text_cfg": text})
        activation = "quick_gelu" if model.get("quick_gelu") else "gelu"
        size = _square(path, vision["image_size"])
        tokens = int(text["vocab_size"])
        config = {
            "model_type": "clip",
            "projection_dim": model["embed_dim"],
            "vision_config": _tower(vision, vision["width"] // vision.get("head_width", 64), activation)
            | {"image_size": size, "patch_size": vision["patch_size"], "projection_dim": model["embed_dim"]},
            "text_config": _tower(text, text["heads"], activation)
            | {"vocab_size": tokens, "max_position_embeddings": text["context_length"]}
            | {"projection_dim": model["embed_dim"], "bos_token_id": tokens - 2, "eos_token_id": tokens - 1},
        }
        processor = _describe_images(path, settings.get("preprocess_cfg") or {}, size)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is no description of a CLIP model: {type(error).__name__}: {error}; download it again"
        ) from error
    return {"config.json": config, "preprocessor_config.json": processor}


def read_weights(files: Sequence[Path]) -> dict[str, Tensor]:
    """Read weight files, and give the weights the names that transformers gives them.

    Raises:
        CheckpointError: A file cannot be read.
    """
    renamed: dict[str, Tensor] = {}
    for path in files:
        try:
            weights: Any = (
                load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
            )
            for name, value in weights.get("state_dict", weights).items():
                renamed |= _rename(name.removeprefix("module.").removeprefix("text."), value)
        except Exception as error:  # safetensors and pickle raise whatever they like for a damaged file
            raise CheckpointError(f"cannot read open_clip's weights in {path}: {error}; download it again") from error
    return renamed


def _rename(name: str, value: Tensor) -> dict[str, Tensor]:
    if name == _CAUSAL_MASK:
        return {}
    if name in _NAMES:
        return {_NAMES[name]: value.T.contiguous() if name in _TRANSPOSED else value}
    renamed = name
    for pattern, replacement in _LAYER_NAMES:
        renamed = re.sub(pattern, replacement, renamed)
    fused = re.fullmatch(r"(.+)\.attn\.in_proj_(weight|bias)", renamed)
    if fused:  # query, key and value in one matrix
        parts = zip("qkv", value.chunk(3), strict=True)
        return {f"{fused[1]}.self_attn.{part}_proj.{fused[2]}": rows.clone() for part, rows in parts}
    return {renamed: value}


def _check_plain(path: Path, parts: Mapping[str, Mapping[str, Any]]) -> None:
    for part, settings in parts.items():
        known = {**_PLAIN[part], **dict.fromkeys(_MODEL if part == "model_cfg" else _TOWER)}
        for name, value in settings.items():
            if value in (None, False) or (name in known and known[name] in (None, value)):
                continue
            raise CheckpointError(
                f"{path}: {part}.{name} is {value!r}, so that this is not the plain CLIP of open_clip, the only one "
                "that this exporter reads. Take a checkpoint of the same model in transformers' layout, if there is "
                "one (for SigLIP: google/siglip-* or google/siglip2-*)"
            )


def _tower(settings: Mapping[str, Any], heads: int, activation: str) -> dict[str, Any]:
    width = int(settings["width"])
    return {
        "hidden_size": width,
        "intermediate_size": int(width * settings.get("mlp_ratio", 4.0)),
        "num_hidden_layers": settings["layers"],
        "num_attention_heads": heads,
        "hidden_act": activation,
    }


def _square(path: Path, size: Any) -> int:
    sides = {int(side) for side in size} if isinstance(size, list) else {int(size)}
    if len(sides) > 1:
        raise CheckpointError(f"{path}: vision_cfg.image_size is {size}; expected a square")
    return sides.pop()


def _describe_images(path: Path, settings: Mapping[str, Any], size: int) -> dict[str, Any]:
    mode, resample = settings.get("resize_mode", "shortest"), settings.get("interpolation", "bicubic")
    if mode not in ("shortest", "squash") or resample not in _RESAMPLES:
        raise CheckpointError(
            f"{path}: preprocess_cfg has resize_mode {mode!r} and interpolation {resample!r}; the client knows "
            f"shortest and squash, and {', '.join(_RESAMPLES)}"
        )
    square = {"height": size, "width": size}
    return {
        "do_center_crop": mode == "shortest",
        "crop_size": square,
        "size": {"shortest_edge": size} if mode == "shortest" else square,
        "resample": _RESAMPLES[resample],
        "image_mean": list(settings.get("mean") or _MEAN),
        "image_std": list(settings.get("std") or _STD),
    }
