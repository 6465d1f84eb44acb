"""Samples for the 8-bit ranges of a dual encoder: texts as the client tokenizes them, images of the model's size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from lychee_client.manifest import CropSpec
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

from lychee_export.checkpoint.range_data import RangeData, augment
from lychee_export.contract.signature import Tensors
from lychee_export.families.fixed_image import FixedImageSpec
from lychee_export.families.text_format import TextFormat

__all__ = ["make_range_sampler"]

_MAX_TOKENS = 256
"""Of a text for the ranges: attention takes memory for the square of it, and longer texts add no new ranges."""
_IMAGES = 40


def make_range_sampler(
    text: TextFormat, image: FixedImageSpec, tokenizer_json: str, load_pixels: Callable[[], NDArray[np.uint8]]
) -> Callable[[RangeData], Mapping[str, tuple[Tensors, ...]]]:
    """Return what makes samples by the encoders' names, one row each and without padding.

    Args:
        text: How texts are made.
        image: How images are made.
        tokenizer_json: The content of a ``tokenizers`` file.
        load_pixels: Gives images for data that has none, as uint8, (num_images, 3, height, width).
    """

    def sample_ranges(data: RangeData) -> Mapping[str, tuple[Tensors, ...]]:
        pixels = np.stack([_fit(picture, image) for picture in data.images]) if data.images else load_pixels()
        images = augment(pixels, max(_IMAGES, len(pixels)))
        return {
            "text_encoder": tuple(_tokenize(text, tokenizer_json, data.texts)),
            "vision_encoder": tuple({"pixel_values": one[None]} for one in images),
        }

    return sample_ranges


def _tokenize(text: TextFormat, tokenizer_json: str, texts: Sequence[str]) -> list[Tensors]:
    """Tokenize each text alone; only where the encoder takes a single length, pad."""
    tokenizer = Tokenizer.from_str(tokenizer_json)
    tokenizer.enable_truncation(min(text.max_tokens, _MAX_TOKENS))
    if len(text.buckets) == 1:
        tokenizer.enable_padding(pad_id=text.pad_token_id, length=text.max_tokens)
    prefixes = (text.query_prefix, text.document_prefix)
    encodings = tokenizer.encode_batch([prefixes[index % 2] + line for index, line in enumerate(texts)])
    return [
        {
            "input_ids": np.array([encoding.ids], np.int64),
            "attention_mask": np.array([encoding.attention_mask], np.int64),
        }
        for encoding in encodings
        if encoding.ids
    ]


def _fit(picture: Image.Image, image: FixedImageSpec) -> NDArray[np.uint8]:
    """Resize, and crop where the format does: uint8, (3, height, width)."""
    box = None
    if isinstance(image, CropSpec):
        share = min(picture.size) / image.resize_shortest_edge
        width, height = (share * size for size in (image.width, image.height))
        left, top = (picture.width - width) / 2, (picture.height - height) / 2
        box = (left, top, left + width, top + height)
    resized = picture.convert("RGB").resize((image.width, image.height), Image.Resampling.BICUBIC, box)
    return np.asarray(resized, np.uint8).transpose(2, 0, 1)
