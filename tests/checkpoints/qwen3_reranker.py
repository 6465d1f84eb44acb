"""Tiny random Qwen3-Rerankers, with the files, keys and settings that published ones have.

Sources: config.json of Qwen/Qwen3-Reranker-0.6B and -8B as transformers 4 wrote them; a conversion to a classifier is
what tomaarsen/Qwen3-Reranker-0.6B-seq-cls does: the difference of two rows of ``lm_head`` becomes ``score``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken
from transformers import Qwen3Config, Qwen3ForCausalLM

from checkpoints.published import edit_json
from checkpoints.qwen_vl import build_tokenizer
from checkpoints.random_weights import randomize

THINKING = ("<think>", "</think>")
SHARD_SIZE = "100KB"

_SIZES = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
}
"""The heads are wider than the hidden size, as in the 0.6B model."""


def build_qwen3_reranker(folder: Path) -> Path:
    """Write what Qwen3-Reranker-0.6B is: one file in bfloat16, the head is the embedding table."""
    _build(folder, tied=True)
    return folder


def build_qwen3_reranker_shards(folder: Path) -> Path:
    """Write what Qwen3-Reranker-8B is: shards, with a head of its own."""
    _build(folder, tied=False, max_shard_size=SHARD_SIZE)
    return folder


def build_qwen3_classifier(folder: Path, *, labels: int = 1) -> Path:
    """Write a conversion to a classifier: of one label, or of several that begin with "no" and "yes"."""
    tokenizer = _build(folder, tied=True)
    path = folder / "model.safetensors"
    weights = load_file(path)
    yes, no = (weights["model.embed_tokens.weight"][tokenizer.convert_tokens_to_ids(word)] for word in ("yes", "no"))
    weights["score.weight"] = (yes - no)[None] if labels == 1 else torch.stack([no, *[yes] * (labels - 1)])
    save_file(weights, path, {"format": "pt"})
    edit_json(
        folder / "config.json",
        architectures=["Qwen3ForSequenceClassification"],
        id2label={str(label): f"LABEL_{label}" for label in range(labels)},
        label2id={f"LABEL_{label}": label for label in range(labels)},
    )
    return folder


def _build(folder: Path, *, tied: bool, **options: Any) -> Any:
    tokenizer = build_tokenizer(folder)
    tokenizer.add_tokens([AddedToken(token, special=False) for token in THINKING])
    tokenizer.save_pretrained(folder)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        tie_word_embeddings=tied,
        bos_token_id=tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"),
        pad_token_id=tokenizer.pad_token_id,
        **_SIZES,
    )
    model = Qwen3ForCausalLM(config).eval()
    randomize(model, seed=3, gain=2.0)
    model.to(torch.bfloat16).save_pretrained(folder, **options)
    edit_json(
        folder / "config.json",
        rope_parameters=None,
        layer_types=None,
        rope_theta=_SIZES["rope_theta"],
        dtype=None,
        torch_dtype="bfloat16",
        use_sliding_window=False,
        max_window_layers=_SIZES["num_hidden_layers"],
    )
    return tokenizer
