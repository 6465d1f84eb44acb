"""Whether half floats hold the scores of attention: keys and queries with a large bias, as trained models have them."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import Any

import torch

from lychee_loadtest.speed.qwen_model import Pairs, Way, build, prepare

__all__ = ["KEY_BIAS", "QUERY_BIAS", "bias_attention", "check_halves"]

KEY_BIAS, QUERY_BIAS = 300.0, 3.0
"""A token's product with itself reaches 128 * 300 * 3 = 115,200 in the text encoder and 72,000 in the vision tower; a
half float holds 65,504. Both are far below that once they are scaled."""
_LAYERS = 4
_PAIRS = {"text": Pairs(4, 64), "image": Pairs(4, 64, (16, 16))}
_WAYS: tuple[Way, ...] = ("exported", "fused")


def bias_attention(model: Any, key: float = KEY_BIAS, query: float = QUERY_BIAS) -> None:
    """Give all queries and keys a bias."""
    with torch.no_grad():
        for layer in model.model.language_model.layers:
            layer.self_attn.q_proj.bias.fill_(query)
            layer.self_attn.k_proj.bias.fill_(key)
        for block in model.model.visual.blocks:
            parts = block.attn.qkv.bias.view(3, -1)
            parts[0].fill_(query)
            parts[1].fill_(key)


def check_halves(config: Mapping[str, Any], device: str) -> list[dict[str, Any]]:
    """Score pairs with four layers of each tower, and print which scores are NaN and how far the others are off."""
    vision = config["vision_config"]
    layers = min(_LAYERS, vision["depth"], config["text_config"]["num_hidden_layers"])
    full = [layers - 1]
    small = dict(config) | {
        "text_config": config["text_config"] | {"num_hidden_layers": layers},
        "vision_config": vision | {"depth": layers, "fullatt_block_indexes": full},
    }
    exact = build(small, torch.float32, device)
    bias_attention(exact)
    expected = {name: prepare(exact, "exported", pairs)() for name, pairs in _PAIRS.items()}
    print("\nhalves\n\n| dtype | way | pairs | NaN | largest error of a score |\n|---|---|---|---|---|")
    lines = []
    for dtype in (torch.float16, torch.bfloat16):
        model = build(small, dtype, device)
        model.load_state_dict(exact.state_dict())
        for way in _WAYS:
            for name, pairs in _PAIRS.items():
                scores = prepare(model, way, pairs)()
                lost = int(scores.isnan().sum())
                error = float((scores - expected[name]).abs().nan_to_num(0).max())
                line = {"dtype": str(dtype).removeprefix("torch."), "way": way, "pairs": name}
                lines.append(line | {"nan": lost, "rows": pairs.rows, "error": error})
                shown = "-" if lost == pairs.rows else f"{error:.4f}"
                print(f"| {line['dtype']} | {way} | {name} | {lost} of {pairs.rows} | {shown} |", flush=True)
        del model
        gc.collect()
    return lines
