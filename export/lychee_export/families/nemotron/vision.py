"""What Llama Nemotron VL does around SigLIP 2: its pixels, and the layers that make tokens of a tile's patches."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

__all__ = ["MERGE_SIZE", "Projector", "make_pixel_table", "merge_patches"]

MERGE_SIZE = 2
"""How many patches, along each edge of a block, become one token: ``downsample_ratio`` is 0.5."""
_MEAN, _STD = 0.5, 0.5
"""SigLIP's, of all channels."""


class Projector(nn.Module):
    """Make tokens of the patches of tiles: one of each block of 2 x 2.

    Args:
        layers: The layers from merged patches to the language model's width; their weights are shared, not copied.
    """

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, patches: Tensor) -> Tensor:
        """Project, (tiles, num_patches, width) to (tiles, num_patches / 4, hidden_size)."""
        return cast(Tensor, self.layers(merge_patches(patches)))


def make_pixel_table() -> Tensor:
    """Return what each byte is to the model: normalized, then rounded to bfloat16, as the checkpoint's processor does.

    Returns:
        float32, (256,).
    """
    values = (torch.arange(256, device="cpu").float() / 255 - _MEAN) / _STD
    return values.to(torch.bfloat16).float()


def merge_patches(patches: Tensor) -> Tensor:
    """Put the patches of each block of 2 x 2 side by side: upper left, upper right, lower left, lower right.

    Args:
        patches: The patches of square images, row by row: (batch_size, num_patches, width).

    Returns:
        (batch_size, num_patches / 4, 4 * width).
    """
    rows, count, width = patches.shape
    side = round(count**0.5) // MERGE_SIZE
    blocks = patches.reshape(rows, side, MERGE_SIZE, side, MERGE_SIZE, width).permute(0, 1, 3, 2, 4, 5)
    return blocks.reshape(rows, side * side, MERGE_SIZE**2 * width)
