"""Tiny random ColPali checkpoints, in the layouts of transformers and of colpali-engine.

Sources: transformers 5.23.0, conversion_mapping.py, and colpali-engine 0.3.18, models/paligemma/colpali, for the names
of published weights.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, models, normalizers, trainers
from transformers import ColPaliConfig, ColPaliForRetrieval, GemmaTokenizer, PaliGemmaConfig, PaliGemmaModel

from checkpoints.random_weights import randomize

_DIM = 128
_SPECIAL_TOKENS = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
_SENTENCES = (
    "Question: Describe the image.\n a photo of a cat on a sofa; a red cup of coffee; how do rockets reach orbit?",
    "一只猫躺在沙发上。怎样泡一杯好咖啡？火箭如何进入轨道？这张照片里有什么？",
)
_WIDTH, _EDGE, _PATCH = 48, 56, 14


def build_colpali(folder: Path) -> Path:
    """Write a checkpoint like vidore/colpali-v1.3-hf: transformers' own class, its weights named as in version 4."""
    config = _describe(folder)
    model = ColPaliForRetrieval(ColPaliConfig(vlm_config=config.to_dict(), embedding_dim=_DIM)).eval()
    randomize(model, seed=23, gain=1.5)
    _adjust(model)
    model.save_pretrained(folder)
    path = folder / "model.safetensors"
    weights = {name.replace("vision_tower.", "vision_tower.vision_model."): x for name, x in load_file(path).items()}
    save_file(weights, path, {"format": "pt"})
    told = {"processor_class": "ColPaliProcessor", "query_prefix": "Question: "}
    (folder / "processor_config.json").write_text(json.dumps(told, indent=2))
    return folder


def build_colpali_engine(folder: Path) -> Path:
    """Write a checkpoint like vidore/colpaligemma-3b-pt-448-base: colpali-engine's class."""
    config = _describe(folder)
    parts = {"model": PaliGemmaModel(config), "custom_text_proj": torch.nn.Linear(_WIDTH, _DIM)}
    model = torch.nn.ModuleDict(parts).eval()
    randomize(model, seed=24, gain=1.5)
    _adjust(model)
    weights = {
        name.replace("model.language_model.", "model.language_model.model.").replace(
            "model.vision_tower.", "model.vision_tower.vision_model."
        ): each.contiguous()
        for name, each in model.state_dict().items()
    }
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config.architectures = ["ColPali"]
    config.save_pretrained(folder)
    return folder


def _describe(folder: Path) -> PaliGemmaConfig:
    """Write the tokenizer and the image processor of a PaliGemma, and return its config."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _build_tokenizer(folder)
    processor = {
        "image_processor_type": "SiglipImageProcessor",
        "image_seq_length": (_EDGE // _PATCH) ** 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"height": _EDGE, "width": _EDGE},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2))
    text = {
        "model_type": "gemma",
        "hidden_size": _WIDTH,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 512,
        "vocab_size": len(tokenizer) + 7,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": _EDGE,
        "patch_size": _PATCH,
        "projection_dim": _WIDTH,
        "vision_use_head": False,
    }
    return PaliGemmaConfig(
        text_config=text,
        vision_config=vision,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        projection_dim=_WIDTH,
        hidden_size=_WIDTH,
        pad_token_id=tokenizer.pad_token_id,
    )


def _build_tokenizer(folder: Path) -> GemmaTokenizer:
    """Train a tokenizer of Gemma's kind, write its files and return it; it puts the first token before every text."""
    trained = Tokenizer(models.BPE(byte_fallback=True))
    trained.normalizer = normalizers.Replace(" ", "▁")
    tokens = [*_SPECIAL_TOKENS, *(f"<0x{byte:02X}>" for byte in range(256))]
    trained.train_from_iterator(
        _SENTENCES * 20, trainers.BpeTrainer(vocab_size=700, special_tokens=tokens, show_progress=False)
    )
    model = json.loads(trained.to_str())["model"]
    tokenizer = GemmaTokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]])
    tokenizer.model_max_length = 512
    tokenizer.add_tokens([AddedToken("<image>", special=True, normalized=False)], special_tokens=True)
    tokenizer.save_pretrained(folder)
    return tokenizer


def _adjust(model: Any) -> None:
    """Have Gemma's norms scale by about one, to which their weights are added, and the last layer's bias weigh more."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in ("embedding_proj_layer.bias", "custom_text_proj.bias"):
                parameter.mul_(5.0)
            if "language_model" in name and "norm" in name:
                parameter.sub_(1.0)
