"""What the client has to know about a checkpoint's images, and how many patches they can become."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lychee_client.manifest import Resampling
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.contract.limits import Limits
from lychee_export.errors import CheckpointError
from lychee_export.families.template import Template

__all__ = ["ImageSettings", "read_image_settings"]

_MAX_ASPECT_RATIO = 200
"""Source: smart_resize in transformers 5.23.0, models/qwen2_vl/image_processing_pil_qwen2_vl.py."""

_UNSTATED_MAX_PIXELS = 1280 * 28 * 28
"""Of an image, by default, where nobody says with how many a model was trained: the 16,384 tokens that
preprocessor_config.json has are what Qwen2-VL can take at all. Source: Qwen2-VL's README, which recommends at most
1,280 tokens an image."""

_RESAMPLES: dict[int, Resampling] = {
    Image.Resampling.BICUBIC: "bicubic",
    Image.Resampling.BILINEAR: "bilinear",
    Image.Resampling.LANCZOS: "lanczos",
}


@dataclass(frozen=True)
class ImageSettings:
    """How images become patches.

    Args:
        patch_size: How many pixels a patch has on each side.
        merge_size: How many patches a block, which becomes one token, has on each side.
        min_pixels: The fewest pixels of an image after resizing.
        max_pixels: The most pixels of an image after resizing, but see ``max_blocks``.
        resample: The filter that resizes: "bicubic", "bilinear" or "lanczos".
        image_mean: The mean of each channel, of pixels in [0, 1].
        image_std: The standard deviation of each channel.
        max_images: The most images of one pair.
        own_max_pixels: The most pixels of an image that the checkpoint reads, of which the export may admit less.
    """

    patch_size: int
    merge_size: int
    min_pixels: int
    max_pixels: int
    resample: Resampling
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    max_images: int
    own_max_pixels: int

    @property
    def max_img_size(self) -> int:
        """The most pixels as the side of a square, rounded up."""
        return math.isqrt(self.max_pixels - 1) + 1

    @property
    def patch_bytes(self) -> int:
        """The number of bytes of one patch: one frame, three channels."""
        return 3 * self.patch_size**2

    @property
    def max_blocks(self) -> int:
        """The most blocks of one image.

        Smart resize keeps to ``max_pixels``, except that it leaves a long strip one block high, and except that it
        rounds up what has less than ``min_pixels``.
        """
        area = (self.patch_size * self.merge_size) ** 2
        strip = math.isqrt(_MAX_ASPECT_RATIO * self.max_pixels // area)
        least = self.min_pixels / area
        rounded_up = least + math.sqrt(least * _MAX_ASPECT_RATIO) + math.sqrt(least) + 1
        return max(self.max_pixels // area, strip, math.ceil(rounded_up))

    @property
    def max_patches(self) -> int:
        """The most patches of one pair."""
        return self.max_blocks * self.merge_size**2 * self.max_images

    def unreduced(self) -> ImageSettings:
        """Return the settings with the checkpoint's own limit."""
        return replace(self, max_pixels=self.own_max_pixels)

    def make_processor(self) -> Qwen2VLImageProcessorPil:
        """Make transformers' image processor with these settings."""
        return Qwen2VLImageProcessorPil(
            size={"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels},
            patch_size=self.patch_size,
            merge_size=self.merge_size,
            resample=next(value for value, name in _RESAMPLES.items() if name == self.resample),
            image_mean=list(self.image_mean),
            image_std=list(self.image_std),
        )


def read_image_settings(
    source: CheckpointSource, vision_config: Any, limits: Limits, template: Template | None = None
) -> ImageSettings:
    """Read preprocessor_config.json within the limits.

    Args:
        source: The checkpoint.
        vision_config: The vision encoder's part of config.json.
        limits: What the deployment admits.
        template: The prompt, which may say how many pixels the model was trained with.

    Raises:
        CheckpointError: The file asks for what the client cannot do, or the limits admit no image.
    """
    config = source.read_json("preprocessor_config.json") or source.read_json("processor_config.json").get(
        "image_processor", {}
    )
    size: Mapping[str, int] = config.get("size") or {}
    default = Qwen2VLImageProcessorPil.size
    told_least, told_most = (template.min_pixels, template.max_pixels) if template else (None, None)
    least = told_least or config.get("min_pixels") or size.get("shortest_edge") or default["shortest_edge"]
    own = config.get("max_pixels") or size.get("longest_edge") or default["longest_edge"]
    own = min(own, told_most or own)
    asked = (told_most or _UNSTATED_MAX_PIXELS) if limits.max_img_size is None else limits.max_img_size**2
    most = min(own, asked)
    if most < least:
        side = math.isqrt(most)
        raise CheckpointError(
            f"an image may have {side} x {side} pixels, and the model takes at least {least}; allow at least "
            f"{math.ceil(math.sqrt(least))} x {math.ceil(math.sqrt(least))}"
        )
    resample = config.get("resample", Qwen2VLImageProcessorPil.resample)
    if resample not in _RESAMPLES:
        raise CheckpointError(
            f"preprocessor_config.json: resample is {resample!r}, the client knows "
            f"{', '.join(f'{value:d} ({name})' for value, name in _RESAMPLES.items())}"
        )
    half = (0.5, 0.5, 0.5)
    mean, std = (
        (half, half)
        if hasattr(vision_config, "deepstack_visual_indexes")
        else (
            tuple(Qwen2VLImageProcessorPil.image_mean),
            tuple(Qwen2VLImageProcessorPil.image_std),
        )
    )
    return ImageSettings(
        patch_size=int(vision_config.patch_size),
        merge_size=int(vision_config.spatial_merge_size),
        min_pixels=int(least),
        max_pixels=int(most),
        resample=_RESAMPLES[resample],
        image_mean=tuple(config.get("image_mean") or mean),
        image_std=tuple(config.get("image_std") or std),
        max_images=limits.max_images,
        own_max_pixels=int(own),
    )
