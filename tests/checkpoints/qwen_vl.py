"""Tiny random checkpoints of the Qwen-VL rerankers.

The tokenizer is Qwen's kind, trained on a few sentences, with the label words as single tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from checkpoints.random_weights import randomize

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
LABELS = ("yes", "no", "True", "False")
QWEN2_VISION = {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14}
QWEN2_5_VISION = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 2,
    "out_hidden_size": 64,
    "patch_size": 14,
    "window_size": 112,
    "fullatt_block_indexes": [1],
}
CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]

JINA_LOGIT_BIAS = 2.65
"""What jina-reranker-m0 subtracts from its logit."""

_MERGED_TOKENS = 600
_CORPUS = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. Note that the "
    'answer can only be "yes" or "no". system user assistant <Instruct>: <Query>: <Document>:',
    "Given a search query, retrieve relevant candidates that answer the query.",
    "You are a helpful assistant. Assert the relevance of the previous image document to the following query, answer "
    "True or False. The query is:",
    "**Document**: **Query**:",
    "a photo of a cat on a sofa; a red cup of coffee; how do rockets reach orbit?",
    "一只猫躺在沙发上。怎样泡一杯好咖啡？火箭如何进入轨道？这张照片里有什么？",
)


def build_tokenizer(folder: Path) -> Qwen2Tokenizer:
    """Train a byte-level tokenizer, write its files and return it."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=_MERGED_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator([*_CORPUS, *LABELS * 100], trainer)
    model = json.loads(trained.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]], model_max_length=32768
    )
    tokenizer.add_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS], special_tokens=True)
    tokenizer.save_pretrained(folder)
    return tokenizer


def build_qwen2_vl(folder: Path, **overrides: Any) -> Path:
    """Write a Qwen2-VL that answers True or False, its config flat as transformers 4 wrote it."""
    return _build_qwen2_vl(folder, Qwen2VLForConditionalGeneration, overrides)


def name_original(folder: Path, original: str) -> None:
    """Say in the model card what the checkpoint was made from: its own name says nothing."""
    card = f"---\nlicense: apache-2.0\nbase_model:\n- {original}\n---\n# A tiny random checkpoint\n"
    (folder / "README.md").write_text(card)


def build_monoqwen(folder: Path, **overrides: Any) -> Path:
    """Write what MonoQwen2-VL is after its LoRA was merged: ``lm_head`` is the embedding table."""
    return build_qwen2_vl(folder, tie_word_embeddings=True, **overrides)


def build_jina_m0(folder: Path, **overrides: Any) -> Path:
    """Write a Qwen2-VL with jina-reranker-m0's head of two layers instead of ``lm_head``."""
    return _build_qwen2_vl(folder, _JinaVLForRanking, overrides)


def build_qwen2_5_vl(
    folder: Path,
    *,
    text: Mapping[str, Any] | None = None,
    vision: Mapping[str, Any] | None = None,
    change: Callable[[Any], None] = lambda _: None,
    max_shard_size: str = "150KB",
    **overrides: Any,
) -> Path:
    """Write a Qwen2.5-VL like lychee-rerank-mm: bfloat16, in several files.

    Args:
        folder: Where it goes.
        text: What the language model's config has instead of what this module gives it.
        vision: The same for the vision encoder's.
        change: Changes the random weights before they are rounded.
        max_shard_size: The largest file.
        overrides: What the whole config has beside that.
    """
    tokenizer = build_tokenizer(folder)
    config = Qwen2_5_VLConfig(
        text_config=text_config(tokenizer, mrope_section=[2, 3, 3]) | dict(text or {}),
        vision_config=QWEN2_5_VISION | dict(vision or {}),
        **special_ids(tokenizer),
        **overrides,
    )
    model = _randomize(Qwen2_5_VLForConditionalGeneration, config)
    change(model)
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size=max_shard_size)
    write_preprocessor(folder, min_pixels=3136, max_pixels=12845056, patch_size=14)
    name_original(folder, "vec-ai/lychee-rerank-mm")
    return folder


def build_qwen3_vl(folder: Path, **overrides: Any) -> Path:
    """Write a Qwen3-VL like Qwen3-VL-Reranker: deepstack, a table of positions, in one file."""
    tokenizer = build_tokenizer(folder)
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 64,
        "patch_size": 16,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0, 1],
    }
    text = text_config(tokenizer, mrope_section=[4, 2, 2]) | {"head_dim": 16}
    text["rope_parameters"]["mrope_interleaved"] = True
    config = Qwen3VLConfig(text_config=text, vision_config=vision, **special_ids(tokenizer), **overrides)
    _randomize(Qwen3VLForConditionalGeneration, config).save_pretrained(folder)
    size = {"shortest_edge": 65536, "longest_edge": 16777216}
    write_preprocessor(folder, size=size, patch_size=16, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    name_original(folder, "Qwen/Qwen3-VL-Reranker-2B")
    return folder


class _JinaVLForRanking(Qwen2VLForConditionalGeneration):
    """The model of jinaai/jina-reranker-m0: ``score`` in the place of ``lm_head``."""

    _tied_weights_keys = None

    def __init__(self, config: Qwen2VLConfig) -> None:
        super().__init__(config)
        width = config.text_config.hidden_size
        self.lm_head = nn.Identity()
        self.score = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
        self.post_init()


def _build_qwen2_vl(folder: Path, model_class: type[PreTrainedModel], overrides: dict[str, Any]) -> Path:
    tokenizer = build_tokenizer(folder)
    config = Qwen2VLConfig(
        text_config=text_config(tokenizer, mrope_section=[2, 3, 3]),
        vision_config=QWEN2_VISION,
        **special_ids(tokenizer),
        **overrides,
    )
    _randomize(model_class, config).save_pretrained(folder)
    _rename_keys(folder / "model.safetensors")
    _flatten_config(folder / "config.json", model_class.__name__.lstrip("_"))
    write_preprocessor(folder, min_pixels=3136, max_pixels=602112, patch_size=14)
    name_original(folder, "lightonai/MonoQwen2-VL-v0.1")
    return folder


def text_config(tokenizer: Qwen2Tokenizer, mrope_section: list[int]) -> dict[str, Any]:
    """Return the config of a small language model."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "bos_token_id": tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>"),
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": mrope_section},
    }


def special_ids(tokenizer: Qwen2Tokenizer) -> dict[str, int]:
    """Return what config.json says of the special tokens."""
    tokens = {"image": "image_pad", "video": "video_pad", "vision_start": "vision_start", "vision_end": "vision_end"}
    return {f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>") for name, token in tokens.items()}


def _randomize(model_class: type[PreTrainedModel], config: Any) -> PreTrainedModel:
    model = model_class(config).eval()
    randomize(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("ln_q.weight"):
                parameter.add_(1.0)
            elif name == "score.0.weight":
                parameter.mul_(4.0)
            elif name == "score.2.bias":
                parameter.fill_(JINA_LOGIT_BIAS)  # the scores lie around 0.5
    return model


def _rename_keys(path: Path) -> None:
    """Give the weights of a Qwen2-VL the names that transformers 4 gave them."""
    renamed = {}
    for name, value in load_file(path).items():
        renamed[name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")] = value
    save_file(renamed, path, {"format": "pt"})


def _flatten_config(path: Path, architecture: str) -> None:
    """Write a Qwen2-VL's config.json as transformers 4 did: the language model's values at the top."""
    config = json.loads(path.read_text())
    text = config.pop("text_config")
    rope = text.pop("rope_parameters")
    text.pop("model_type")
    config["vision_config"].pop("rope_parameters", None)
    scaling = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    flat = text | config | {"rope_theta": rope["rope_theta"], "rope_scaling": scaling}
    path.write_text(json.dumps(flat | {"architectures": [architecture]}, indent=2))


def write_preprocessor(folder: Path, **values: Any) -> None:
    """Write preprocessor_config.json with these values and the family's own."""
    constants = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "merge_size": 2,
        "temporal_patch_size": 2,
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(constants | values, indent=2))
