"""The fake server's cross-encoders: one that reads patches in the prompt, one with images of a fixed size beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from lychee_client._errors import ModelNotReadyError, RequestRejectedError
from lychee_client.transports.base import InferRequest, Tensor
from tokenizers import Tokenizer, models, pre_tokenizers

SPECIAL_TOKENS: Final = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
_ALPHABET: Final = sorted(pre_tokenizers.ByteLevel.alphabet())
IMAGE_TOKEN_ID: Final = len(_ALPHABET) + SPECIAL_TOKENS.index("<|image_pad|>")
_MAX_TOKENS: Final = 256

# As Qwen-VL rerankers have them, with smaller sizes. Replaces keys of the fake's dual encoder.
PATCHES_MANIFEST: Final[dict[str, Any]] = {
    "pipeline": "cross_encoder",
    "text": {"pad_token_id": 0, "max_tokens": _MAX_TOKENS, "buckets": [64, 128, 256]},
    "prompt": {
        "template": "<|im_start|>I:{instruction} Q:{query} D:{document}<|im_end|>",
        "image": "<|vision_start|><|image_pad|><|vision_end|>",
        "image_token": "<|image_pad|>",
        "missing_text": "",
        "suffix_token_ids": [],
        "queries": ["text", "image", "image_text"],
        "documents": ["text", "image", "image_text"],
    },
    "instruction": {"default": "Find it."},
    "image": {
        "kind": "patches",
        "patch_size": 14,
        "merge_size": 2,
        "min_pixels": 56 * 56,
        "max_pixels": 112 * 112,
        "resample": "bicubic",
        "buckets": [32, 64, 128],
        "max_images": 2,
        "embedding_dim": 6,
    },
    "max_img_size": 112,
    "max_batch_size": {"rerank_text": 4, "rerank_image": 2},
}
# As Llama Nemotron VL has them, with smaller sizes.
TILES_MANIFEST: Final[dict[str, Any]] = {
    "pipeline": "cross_encoder",
    "text": {"pad_token_id": 0, "max_tokens": _MAX_TOKENS, "buckets": [64, 128, 256]},
    "prompt": {
        "template": "{images}Q:{query} D:{document}",
        "image": "<|vision_start|><|image_pad|><|vision_end|> ",
        "image_token": "<|image_pad|>",
        "missing_text": "",
        "suffix_token_ids": [],
        "queries": ["text"],
        "documents": ["text", "image", "image_text"],
    },
    "image": {
        "kind": "tiles",
        "tile_size": 32,
        "max_tiles": 6,
        "tile_tokens": 4,
        "resample": "bicubic",
        "embedding_dim": 6,
    },
    "max_img_size": 79,
    "checkpoint_limits": {"max_tokens": 512, "max_pixels": 6144},
    "max_batch_size": {"rerank_text": 4, "rerank_image": 2},
}
# As BLIP's image-text matching has them.
STRETCH_MANIFEST: Final[dict[str, Any]] = {
    "pipeline": "cross_encoder",
    "text": {"pad_token_id": 0, "max_tokens": 64, "buckets": [16, 64]},
    "prompt": {
        "template": "{query}",
        "image": "",
        "image_token": "",
        "missing_text": "",
        "suffix_token_ids": [],
        "queries": ["text"],
        "documents": ["image"],
    },
    "image": {"kind": "stretch", "height": 20, "width": 30, "resample": "bicubic"},
    "max_batch_size": {"rerank_image": 2},
}
# As text cross-encoders have them.
TEXT_MANIFEST: Final[dict[str, Any]] = {
    "pipeline": "cross_encoder",
    "text": {"pad_token_id": 0, "max_tokens": 64, "buckets": [16, 64]},
    "prompt": {
        "template": "{query}<|im_end|>{document}",
        "image": "",
        "image_token": "",
        "missing_text": "",
        "suffix_token_ids": [],
        "queries": ["text"],
        "documents": ["text"],
    },
    "image": None,
    "checkpoint_limits": {"max_tokens": 512},
    "max_batch_size": {"rerank_text": 4},
}


def score_pairs(request: InferRequest, manifest: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return scores that depend on every token, pixel and position, and not on padding or on other rows.

    Raises:
        ModelNotReadyError: There is no such model.
        RequestRejectedError: A tensor's name, dtype, shape or padding is wrong, or the batch is over the limit.
    """
    _check_request(request, manifest)
    inputs = request.inputs
    logits = np.zeros((request.rows, 1), np.float32)
    for row in range(request.rows):
        ids = inputs["input_ids"][row][inputs["attention_mask"][row] > 0]
        value = _summarize(np.random.default_rng(0).standard_normal(len(_ALPHABET) + len(SPECIAL_TOKENS))[ids])
        if "pixel_values" in inputs:
            pixels = inputs["pixel_values"][row]
            grid = inputs["image_grid_thw"][row] if "image_grid_thw" in inputs else np.zeros((1, 3), np.int64)
            patches = int(grid.prod(axis=1).sum())
            if manifest["image"]["kind"] == "tiles" and np.count_nonzero(ids == IMAGE_TOKEN_ID) != 4 * len(pixels):
                raise RequestRejectedError(f"row {row} has another number of image tokens than its tiles need")
            if "image_grid_thw" in inputs and (
                pixels[patches:].any() or np.count_nonzero(ids == IMAGE_TOKEN_ID) != patches // 4
            ):
                raise RequestRejectedError(f"row {row} has another number of patches or image tokens than its grid")
            value += _summarize(pixels[: patches or None].reshape(-1) / 255) + 0.1 * _summarize(grid.reshape(-1))
        logits[row] = value
    return {"relevance_score": 1 / (1 + np.exp(-logits)), "logits": logits}


def _summarize(values: npt.NDArray[Any]) -> float:
    return float((values * np.cos(np.arange(len(values)))).sum() / max(1, len(values)) ** 0.5)


def _check_request(request: InferRequest, manifest: Mapping[str, Any]) -> None:
    name, limits, image = request.model_name, manifest["max_batch_size"], manifest["image"]
    if name not in limits:
        raise ModelNotReadyError(f"unknown model {name}", model_name=name)
    expected: dict[str, tuple[type, tuple[int, ...] | None]] = {
        "input_ids": (np.int64, None),
        "attention_mask": (np.int64, None),
    }
    if image is None:
        pass
    elif image["kind"] == "patches":
        expected["image_grid_thw"] = (np.int64, (image["max_images"], 3))
        if name == "rerank_text":
            expected["image_embeds"] = (np.float32, (1, image["embedding_dim"]))
        else:
            expected["pixel_values"] = (np.uint8, None)
    elif image["kind"] == "tiles" and name == "rerank_text":
        expected["image_embeds"] = (np.float32, (1, image["embedding_dim"]))
    elif image["kind"] == "tiles":
        tiles = request.inputs["pixel_values"].shape[1]
        expected["pixel_values"] = (np.uint8, (tiles, 3, image["tile_size"], image["tile_size"]))
    else:
        expected["pixel_values"] = (np.uint8, (3, image["height"], image["width"]))
    if request.inputs.keys() != expected.keys() or request.rows > limits[name]:
        raise RequestRejectedError(f"{request.rows} rows of {sorted(request.inputs)}", model_name=name)
    for input_name, tensor in request.inputs.items():
        dtype, shape = expected[input_name]
        if shape is None and input_name == "pixel_values":
            fits = tensor.shape[1] in image["buckets"] and tensor.shape[2] == 3 * image["patch_size"] ** 2
        else:
            fits = tensor.shape[1:] == shape if shape else tensor.shape[1] in manifest["text"]["buckets"]
        if tensor.dtype != dtype or not fits or len(tensor) != request.rows:
            raise RequestRejectedError(f"{input_name} is {tensor.dtype} {tensor.shape}", model_name=name)


def make_tokenizer_json() -> str:
    """Return a tokenizer with one token per byte, and Qwen's special tokens."""
    tokenizer = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(_ALPHABET)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer.to_str()
