"""Qwen2.5-VL-3B's shapes with random weights: the model, its three ways of computing a pair, inputs and operations.

Time and memory depend on shapes alone, so no checkpoint is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from lychee_export.families.heads import LabelHead
from lychee_export.families.qwen_vl.text import TextEncoder
from lychee_export.families.qwen_vl.vision import PatchAttention, VisionEncoder
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForImageTextToText, Qwen2_5_VLConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision

from lychee_loadtest.speed.image_sizes import VISION_CONFIG

__all__ = ["MODEL_CONFIG", "WAYS", "Pairs", "Way", "Work", "build", "count_flops", "prepare"]

# Source: https://huggingface.co/Qwen/Qwen2.5-VL-3B-Instruct/blob/main/config.json
MODEL_CONFIG: dict[str, Any] = {
    "text_config": {
        "hidden_size": 2048,
        "intermediate_size": 11008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
        "max_position_embeddings": 128000,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    },
    "vision_config": VISION_CONFIG,
    "tie_word_embeddings": True,
    "image_token_id": 151655,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "video_token_id": 151656,
}

Way = Literal["exported", "fused", "transformers"]
WAYS: tuple[Way, ...] = get_args(Way)
"""exported: the modules that `lychee export` turns into ONNX, with plain attention; fused: the same modules with
`scaled_dot_product_attention` and the same masks; transformers: its own class with the same function."""

_FIRST_SPECIAL_ID = 151643
_LABEL_IDS = (9693, 2152)  # any two tokens: the head's cost does not depend on them
_TOKENS_BEFORE_IMAGE = 8


@dataclass(frozen=True)
class Pairs:
    """What one call scores.

    Args:
        rows: How many pairs.
        text_tokens: The tokens of each prompt, without those of its image.
        grid: Rows and columns of the patches of each pair's image; None for no image.
    """

    rows: int
    text_tokens: int
    grid: tuple[int, int] | None = None

    @property
    def patches(self) -> int:
        """The patches of a pair."""
        return 0 if self.grid is None else self.grid[0] * self.grid[1]

    @property
    def tokens(self) -> int:
        """The tokens of a pair."""
        return self.text_tokens + self.patches // cast(int, VISION_CONFIG["spatial_merge_size"]) ** 2


@dataclass(frozen=True)
class Work:
    """Operations, a multiplication and an addition counted as two.

    Args:
        needed: What the model asks for: a token reads those before it, a patch its window.
        computed: What plain attention computes before it masks: every token with every other, every patch likewise.
    """

    needed: float
    computed: float

    def __add__(self, other: Work) -> Work:
        return Work(self.needed + other.needed, self.computed + other.computed)

    def __mul__(self, factor: int) -> Work:
        return Work(self.needed * factor, self.computed * factor)


def count_flops(pairs: Pairs, text: Mapping[str, Any], vision: Mapping[str, Any] = VISION_CONFIG) -> Work:
    """Count the matrix products of a call; norms, softmax, activations and rotations are left out.

    The head is left out, too: it is one row per pair.
    """
    width, layers = text["hidden_size"], text["num_hidden_layers"]
    key_width = width // text["num_attention_heads"] * text["num_key_value_heads"]
    weights = 2 * width * width + 2 * width * key_width + 3 * width * text["intermediate_size"]
    dense, tokens = 2.0 * weights * pairs.tokens, pairs.tokens
    layer = Work(dense + 2.0 * width * tokens * (tokens + 1), dense + 4.0 * width * tokens**2)
    work: Work = layer * layers
    if pairs.grid is not None:
        work += _count_vision_flops(pairs.grid, vision)
    return work * pairs.rows


def _count_vision_flops(grid: tuple[int, int], vision: Mapping[str, Any]) -> Work:
    width, merged = vision["hidden_size"], vision["hidden_size"] * vision["spatial_merge_size"] ** 2
    patches = grid[0] * grid[1]
    dense = 2.0 * patches * (4 * width * width + 3 * width * vision["intermediate_size"])
    side = vision["window_size"] // vision["patch_size"]
    seen = [sum(min(side, size - start) ** 2 for start in range(0, size, side)) for size in grid]  # per column and row
    windows, whole = 4.0 * width * seen[0] * seen[1], 4.0 * width * patches**2
    layers, full = vision["depth"], len([index for index in vision["fullatt_block_indexes"] if index < vision["depth"]])
    ends = 2.0 * patches * 3 * vision["patch_size"] ** 2 * width
    ends += 2.0 * patches * width / merged * (merged * merged + merged * vision["out_hidden_size"])
    attention = Work(full * whole + (layers - full) * windows, layers * whole)
    every = Work(dense * layers + ends, dense * layers + ends)
    return every + attention


class FusedPatchAttention(PatchAttention):
    """The exporter's attention of patches with `scaled_dot_product_attention`, which stores no scores."""

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """Attend, (batch_size, num_patches, width) to the same."""
        rows, num_patches, width = x.shape
        heads = (rows, num_patches, 3, self.num_heads, width // self.num_heads)
        query, key, value = self.qkv(x).reshape(heads).unbind(2)
        query, key = apply_rotary_pos_emb_vision(query, key, *(part[:, 0] for part in rotation))
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return cast(Tensor, self.proj(mixed.transpose(1, 2).reshape(rows, num_patches, width)))


def build(config: Mapping[str, Any], dtype: torch.dtype, device: str) -> Any:
    """Build transformers' model with random weights, in evaluation mode."""
    torch.manual_seed(0)
    with torch.device(device):
        model: Any = cast(Any, AutoModelForImageTextToText).from_config(Qwen2_5_VLConfig(**config), dtype=dtype)
    return model.eval()


def prepare(model: Any, way: Way, pairs: Pairs) -> Callable[[], Tensor]:
    """Make inputs, and return what scores them; its result is float32, (rows, 1).

    The attention of a model is set when it runs, so that all ways can share its weights.
    """
    inputs = make_inputs(pairs, model.device, model.config.image_token_id)
    kind = "eager" if way == "exported" else "sdpa"
    head = LabelHead(model.lm_head.weight, *(index % model.lm_head.weight.shape[0] for index in _LABEL_IDS))
    if way == "transformers":
        return _use(model, kind, _prepare_transformers(model, pairs, inputs, head))
    text = TextEncoder(model).eval()
    text.position_axes = text.position_axes.to(model.device)
    image_embeds = torch.zeros((pairs.rows, 1, text.embedding_dim), device=model.device)
    vision = VisionEncoder(model, (0.5,) * 3, (0.25,) * 3)
    if way != "exported":
        for block in vision.blocks:
            block.attn = FusedPatchAttention(block.attn, cast(PatchAttention, block.attn).num_heads)
    vision.eval()

    def score() -> Tensor:
        embeds = vision(inputs["pixel_values"], inputs["image_grid_thw"]) if pairs.grid else image_embeds
        hidden = text(inputs["input_ids"], inputs["attention_mask"], embeds, inputs["image_grid_thw"])
        return cast(Tensor, head(hidden)[0])

    return _use(model, kind, score)


def make_inputs(pairs: Pairs, device: Any, image_token_id: int) -> dict[str, Tensor]:
    """Make random rows without padding, as the exported models take them."""
    rng = np.random.default_rng(0)
    input_ids = rng.integers(0, min(_FIRST_SPECIAL_ID, image_token_id), (pairs.rows, pairs.tokens))
    start = min(_TOKENS_BEFORE_IMAGE, pairs.text_tokens)
    input_ids[:, start : start + pairs.tokens - pairs.text_tokens] = image_token_id
    pixels = rng.integers(0, 256, (pairs.rows, pairs.patches, 3 * VISION_CONFIG["patch_size"] ** 2), dtype=np.uint8)
    grid = (1, *pairs.grid) if pairs.grid else (0, 0, 0)
    arrays = {
        "input_ids": input_ids,
        "attention_mask": np.ones_like(input_ids),
        "pixel_values": pixels,
        "image_grid_thw": np.tile(np.array(grid, np.int64), (pairs.rows, 1, 1)),
    }
    return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}


def _prepare_transformers(model: Any, pairs: Pairs, inputs: dict[str, Tensor], head: LabelHead) -> Callable[[], Tensor]:
    ids = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    if pairs.grid:
        frames = inputs["pixel_values"].reshape(-1, 3, 1, inputs["pixel_values"].shape[-1] // 3).expand(-1, -1, 2, -1)
        ids["pixel_values"] = (frames.flatten(1) / 255 - 0.5) / 0.25
        ids["image_grid_thw"] = inputs["image_grid_thw"][:, 0]
        ids["mm_token_type_ids"] = (inputs["input_ids"] == model.config.image_token_id).to(torch.int32)

    def score() -> Tensor:
        states = model.model(**ids, use_cache=False).last_hidden_state
        return cast(Tensor, head(states[:, -1].float())[0])

    return score


def _use(model: Any, attention: str, score: Callable[[], Tensor]) -> Callable[[], Tensor]:
    def run() -> Tensor:
        for config in (model.config.text_config, model.config.vision_config):
            config._attn_implementation = attention
        with torch.no_grad():
            return score()

    return run
