"""Rows as the client sends them: token ids padded to a bucket, images cut into patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lychee_export.contract.signature import Axis, Tensors
from lychee_export.errors import CheckpointError
from lychee_export.families.qwen_vl.images import ImageSettings
from lychee_export.families.qwen_vl.inputs import PatchInputs
from lychee_export.families.text_format import pad_ids

__all__ = ["Patches", "cut_patches", "make_processor", "pad_images", "pad_texts", "without_images"]

Patches: TypeAlias = tuple[Tensor, Tensor]
"""Of one image: uint8, (num_patches, patch_bytes), before normalization; int64, (3,), the grid."""


def make_processor(processor_class: type[Any], images: ImageSettings, tokenizer: Any) -> Any:
    """Make transformers' processor without its video processor, which needs torchvision."""
    still_images = type(
        processor_class.__name__,
        (processor_class,),
        {"get_attributes": classmethod(lambda _: ["image_processor", "tokenizer"])},
    )
    return still_images(images.make_processor(), tokenizer)


def cut_patches(image_processor: Any, image: Image.Image) -> Patches:
    """Cut an image into patches with transformers' image processor."""
    inputs = image_processor(image, do_rescale=False, do_normalize=False, return_tensors="pt")
    patches = inputs["pixel_values"].unflatten(1, (3, image_processor.temporal_patch_size, -1))[:, :, 0]
    return patches.flatten(1).to(torch.uint8), inputs["image_grid_thw"][0]


def pad_texts(texts: Sequence[NDArray[np.int64]], inputs: PatchInputs, *, padded: bool = True) -> Tensors:
    """Pad token ids on the right to a common bucket.

    Args:
        texts: int64, (tokens,) each.
        inputs: What the encoders take.
        padded: Whether to leave a larger bucket, for the check of padding; otherwise they may fill all.
    """
    length = _choose_bucket(inputs.tokens, max(map(len, texts)), padded)
    return pad_ids(texts, length, inputs.pad_token_id)


def pad_images(images: Sequence[Sequence[Patches]], inputs: PatchInputs, *, padded: bool = True) -> Tensors:
    """Pad the patches of each row's images to a common bucket.

    Args:
        images: The images of each row.
        inputs: What the encoders take.
        padded: See ``pad_texts``.
    """
    most = max(sum(len(patches) for patches, _ in row) for row in images)
    count = _choose_bucket(inputs.patches, most, padded)
    values = np.zeros((len(images), count, inputs.images.patch_bytes), np.uint8)
    grids = np.zeros((len(images), inputs.images.max_images, 3), np.int64)
    for index, row in enumerate(images):
        start = 0
        for place, (patches, grid) in enumerate(row):
            values[index, start : start + len(patches)] = patches
            grids[index, place] = grid
            start += len(patches)
    return {"pixel_values": values, "image_grid_thw": grids}


def without_images(rows: int, inputs: PatchInputs) -> Tensors:
    """Return what rows without images have in their place."""
    return {
        "image_embeds": np.zeros((rows, 1, inputs.embedding_dim), np.float32),
        "image_grid_thw": np.zeros((rows, inputs.images.max_images, 3), np.int64),
    }


def _choose_bucket(axis: Axis, size: int, padded: bool) -> int:
    """Return the smallest bucket for the rows, one that leaves a larger one if they are to be padded.

    Raises:
        CheckpointError: There is no such bucket.
    """
    for bucket in axis.buckets[:-1] if padded else axis.buckets:
        if bucket >= size:
            return bucket
    raise CheckpointError(
        f"the limits leave no room: a short pair already takes {size} of at most {axis.maximum} ({axis.name}); "
        "choose a larger profile"
    )
