"""A Qwen2.5-VL of many layers with the value ranges of trained ones, narrow unless said otherwise.

What training gives and random weights do not: norm weights up to 8, biases far from zero, a token at which the residual
stream reaches thousands (massive activations), and logits of both signs up to 10.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from checkpoints.qwen_vl import build_qwen2_5_vl

_MARK, _MASSIVE_CHANNEL = 6, 5
"""Channels of the residual stream: one says that a token opens a message, the other becomes massive where it does."""
_KEY_BIAS = 100.0
"""Of the channel that turns least with the position, as in trained models: it moves all scores of a query alike."""


def build_deep_qwen2_5_vl(folder: Path, layers: int, blocks: int = 2, shard: str = "1GB", **text: Any) -> Path:
    """Write the checkpoint in bfloat16.

    Args:
        folder: Where it goes; it is made.
        layers: Of the language model.
        blocks: Of the vision encoder.
        shard: The largest file.
        text: What the language model's config has beside that, such as ``hidden_size``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return build_qwen2_5_vl(
        folder,
        text={"num_hidden_layers": layers, **text},
        vision={
            "depth": blocks,
            "fullatt_block_indexes": [blocks - 1],
            "out_hidden_size": text.get("hidden_size", 64),
        },
        change=give_trained_ranges,
        max_shard_size=shard,
    )


def give_trained_ranges(model: Any) -> None:
    """Change the random weights of a ``Qwen2_5_VLForConditionalGeneration`` in place."""
    generator = torch.Generator().manual_seed(1)
    language = model.model.language_model

    def draw(tensor: Tensor, low: float, high: float) -> None:
        tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))

    with torch.no_grad():
        for index, layer in enumerate(language.layers):
            reach = 1 + 4 * index / len(language.layers)  # norm weights grow with the depth
            for norm in (layer.input_layernorm, layer.post_attention_layernorm):
                draw(norm.weight, 0.2, reach)
                norm.weight[_MASSIVE_CHANNEL] = 0.02
            for matrix in (layer.self_attn.o_proj, layer.mlp.down_proj):
                matrix.weight.mul_(0.2)
            for matrix in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.mlp.gate_proj):
                matrix.weight.div_(reach / 2)  # training keeps attention from being all or nothing
            layer.self_attn.k_proj.bias.mul_(5)
            half = layer.self_attn.head_dim // 2
            layer.self_attn.k_proj.bias[half - 1 :: 2 * half] = _KEY_BIAS
        _make_massive(model)
        draw(language.norm.weight, 1.0, 8.0)
        language.norm.weight[_MASSIVE_CHANNEL] = 0.1


def _make_massive(model: Any) -> None:
    """Let one unit of the second layer fire at the token that opens a message."""
    language = model.model.language_model
    first, second = language.layers[:2]
    language.embed_tokens.weight[:, _MARK] = 0
    language.embed_tokens.weight[model.config.text_config.eos_token_id - 1, _MARK] = 8  # <|im_start|>
    for matrix in (first.self_attn.o_proj, first.mlp.down_proj, second.self_attn.o_proj):
        matrix.weight[_MARK] = 0
    second.post_attention_layernorm.weight[_MARK] = 1
    for matrix in (second.mlp.gate_proj, second.mlp.up_proj):
        matrix.weight[0] = 0
        matrix.weight[0, _MARK] = 2
    second.mlp.down_proj.weight[:, 0] = 0
    second.mlp.down_proj.weight[_MASSIVE_CHANNEL, 0] = 40
