"""The tensors of images beside a prompt, and what stands in their place where there are none."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

from lychee_client._errors import InvalidInputError
from lychee_client.manifest.image_spec import ImageSpec, PatchSpec, TokenImageSpec
from lychee_client.preprocessing.image import PreparedImage
from lychee_client.transports.base import Tensor


def pack_images(images: Sequence[PreparedImage], spec: ImageSpec) -> dict[str, Tensor]:
    """Return the tensors of one pair's images.

    Args:
        images: The prepared images in the order of the prompt, at least one; for a model that reads no patches exactly
            one.
        spec: The specification that the images were prepared with.

    Returns:
        `pixel_values`, uint8, (1, num_patches, patch_bytes), zeros up to a bucket, and `image_grid_thw`, int64,
        (1, max_images, 3), zeros after the last image. With a fixed image size `pixel_values` only, uint8,
        (1, 3, height, width), and with tiles uint8, (1, num_tiles, 3, tile_size, tile_size).

    Raises:
        InvalidInputError: The images have more patches than the largest bucket.
    """
    if not isinstance(spec, PatchSpec):
        (image,) = images
        return {"pixel_values": image.pixel_values[None]}
    patches = np.concatenate([image.pixel_values for image in images])  # (num_patches, patch_bytes)
    pixel_values = np.zeros((1, find_patch_bucket(images, spec), spec.patch_bytes), np.uint8)
    pixel_values[0, : len(patches)] = patches
    grid = np.zeros((1, spec.max_images, 3), np.int64)
    grid[0, : len(images)] = [image.grid_thw for image in images]
    return {"pixel_values": pixel_values, "image_grid_thw": grid}


def find_patch_bucket(images: Sequence[PreparedImage], spec: PatchSpec) -> int:
    """Return the smallest bucket that holds the images' patches.

    Raises:
        InvalidInputError: The images have more patches than the largest bucket.
    """
    patches = sum(len(image.pixel_values) for image in images)
    if patches > spec.buckets[-1]:
        sizes = " and ".join("{} x {}".format(*image.resized_to) for image in images)
        raise InvalidInputError(
            f"the pair's images have {patches} patches (resized to {sizes} pixels), the model reads at most "
            f"{spec.buckets[-1]}; crop long images, or lower max_img_size"
        )
    return spec.buckets[bisect_left(spec.buckets, patches)]


def without_images(spec: ImageSpec | None, rows: int) -> dict[str, Tensor]:
    """Return what stands in the place of images in a request for texts."""
    if not isinstance(spec, TokenImageSpec):
        return {}
    none: dict[str, Tensor] = {"image_embeds": np.zeros((rows, 1, spec.embedding_dim), np.float32)}
    if isinstance(spec, PatchSpec):
        none["image_grid_thw"] = np.zeros((rows, spec.max_images, 3), np.int64)
    return none
