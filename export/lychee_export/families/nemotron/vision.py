"""The vision tower of Llama Nemotron VL: SigLIP 2 for each tile, and the layers that make tokens of its patches."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

__all__ = ["MERGE_SIZE", "VisionEncoder", "make_pixel_table", "merge_patches"]

MERGE_SIZE = 2
"""How many patches, along each edge of a block, become one token: ``downsample_ratio`` is 0.5."""
_MEAN, _STD = 0.5, 0.5
"""SigLIP's, of all channels."""


class VisionEncoder(nn.Module):
    """Embed the tiles of a pair's image.

    Args:
        vision_model: The ``SiglipVisionModel``; its weights are shared, not copied.
        projector: The layers from merged patches to the language model's width; shared too.
    """

    def __init__(self, vision_model: nn.Module, projector: nn.Module) -> None:
        super().__init__()
        self.vision_model, self.projector = vision_model, projector
        # A plain attribute, not a buffer: it stays as it is when the module becomes float16.
        self.pixel_table = make_pixel_table()

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Embed tiles.

        Args:
            pixel_values: uint8, (batch_size, num_tiles, 3, tile_size, tile_size), RGB.

        Returns:
            float32, (batch_size, num_tiles * tile_tokens, hidden_size of the language model).
        """
        places = pixel_values.float().to(torch.int64)  # TensorRT casts bytes to floats alone
        rows, tiles = places.shape[:2]
        pixels = self.pixel_table.to(places.device)[places.flatten(0, 1)]
        patches = cast(Tensor, self.vision_model(pixel_values=pixels).last_hidden_state)
        embeds = cast(Tensor, self.projector(merge_patches(patches)))  # (rows * tiles, tile_tokens, hidden_size)
        return embeds.float().reshape(rows, tiles * embeds.shape[1], embeds.shape[2])


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
