"""Where the patches of a pair's images lie, computed inside the graph from the images' grids."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["PatchLayout", "count_patches", "lay_out_patches"]


@dataclass(frozen=True)
class PatchLayout:
    """Place of every patch; int64, (batch_size, num_patches) each.

    A patch beyond the pair's images is padding: its image is ``max_images`` and its place has no meaning.

    Args:
        image: The index of the patch's image within the pair.
        height: How many patches a column of that image has.
        width: How many patches a row of that image has.
        row: The row of the patch in its image.
        column: The column of the patch in its image.
    """

    image: Tensor
    height: Tensor
    width: Tensor
    row: Tensor
    column: Tensor


def count_patches(image_grid_thw: Tensor) -> tuple[Tensor, Tensor]:
    """Return first patch of each image and of what follows it; int64, (batch_size, max_images) each."""
    ends = image_grid_thw.prod(-1).cumsum(1)
    return ends - image_grid_thw.prod(-1), ends


def lay_out_patches(image_grid_thw: Tensor, num_patches: int, merge_size: int) -> PatchLayout:
    """Undo the order in which transformers' image processor lists patches: by blocks that will be merged.

    Args:
        image_grid_thw: int64, (batch_size, max_images, 3): frames, height and width in patches of still images,
            which have one frame; zeros for no image.
        num_patches: The number of patches per row, padding included.
        merge_size: How many patches a block has on each side.
    """
    starts, ends = (bound[:, None] for bound in count_patches(image_grid_thw))  # (batch_size, 1, max_images)
    place = torch.arange(num_patches, device=image_grid_thw.device)[:, None]  # (num_patches, 1)
    passed = (place >= ends).to(torch.int64)  # (batch_size, num_patches, max_images)
    inside = (place >= starts).to(torch.int64) - passed  # one for the patch's image, else zero
    height, width = ((inside * image_grid_thw[:, None, :, axis]).sum(-1).clamp(min=merge_size) for axis in (1, 2))
    place = place[:, 0] - (inside * starts).sum(-1)  # (batch_size, num_patches)
    block, in_block = place // merge_size**2, place % merge_size**2
    blocks_in_row = width // merge_size
    row = block // blocks_in_row * merge_size + in_block // merge_size
    column = block % blocks_in_row * merge_size + in_block % merge_size
    return PatchLayout(passed.sum(-1), height, width, row, column)
