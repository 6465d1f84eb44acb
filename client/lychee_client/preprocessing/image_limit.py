"""Smaller images than the model was exported with, where the caller asks for them."""

from __future__ import annotations

import math

import msgspec

from lychee_client._errors import ConfigurationError
from lychee_client.manifest.image_spec import ImageSpec, PatchSpec, TokenImageSpec
from lychee_client.manifest.manifest import Manifest


def limit_images(manifest: Manifest, max_img_size: int | None) -> tuple[ImageSpec | None, str | None]:
    """Return how to prepare images with at most so many pixels, and a warning if that changes nothing.

    The first is None for a model that reads no images.

    Args:
        manifest: The manifest of the model.
        max_img_size: The most pixels of one image, as the side of a square. None keeps the model's own limit.

    Raises:
        ConfigurationError: `max_img_size` is below the model's minimum.
    """
    spec = manifest.image
    if max_img_size is None:
        return spec, None
    if spec is None:
        return spec, f"{manifest.model_id} reads no images; max_img_size has no effect"
    if not isinstance(spec, TokenImageSpec):
        size = f"{spec.width} x {spec.height}"
        return spec, f"{manifest.model_id} reads every image as {size} pixels; max_img_size has no effect"
    assert manifest.max_img_size is not None
    if max_img_size > manifest.max_img_size:
        return spec, (
            f"max_img_size is {max_img_size}, but {manifest.model_id} was exported with {manifest.max_img_size}, which "
            "remains the limit; export it again with a larger one"
        )
    least = max(spec.min_pixels, spec.block_size**2) if isinstance(spec, PatchSpec) else spec.min_pixels
    if max_img_size**2 < least:
        raise ConfigurationError(
            f"max_img_size is {max_img_size}; {manifest.model_id} needs images of at least {least} pixels: expected "
            f"{math.isqrt(least - 1) + 1} to {manifest.max_img_size}, or None for the model's own limit"
        )
    most = min(spec.max_pixels, max_img_size**2)
    if isinstance(spec, PatchSpec):
        return msgspec.structs.replace(spec, max_pixels=most), None
    return msgspec.structs.replace(spec, max_tiles=most // spec.min_pixels), None
