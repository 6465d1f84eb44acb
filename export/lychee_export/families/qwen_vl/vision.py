"""The vision towers of Qwen2-VL, Qwen2.5-VL and Qwen3-VL as one batchable graph.

transformers computes windows, rotary positions and segments in Python loops over the images; here they are arithmetic
on the grid inside the graph, so that images of any size share one ONNX file. The parameters are transformers' own
modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from lychee_export.families.qwen_vl.layout import PatchLayout, lay_out_patches

__all__ = ["PatchAttention", "VisionEncoder"]

_WINDOWS_PER_SIDE = 512
"""More windows than any image has on a side: 512 are 57,344 pixels. With it the numbers of windows stay below 2**24 for
63 images, and so survive OpenVINO, which compares integers as float32."""


class VisionEncoder(nn.Module):
    """Embed a pair's images.

    Args:
        model: A ``Qwen2VLForConditionalGeneration``, ``Qwen2_5_VLForConditionalGeneration`` or
            ``Qwen3VLForConditionalGeneration``; its parameters are shared, not copied.
        image_mean: The mean of each channel, of pixels in [0, 1].
        image_std: The standard deviation of each channel.

    Attributes:
        full_attention: Whether a patch sees its whole image, by block; otherwise it sees its window.
        deepstack: The index of the merger that reads the block for the text encoder's early layers, or None, by block.
    """

    def __init__(self, model: Any, image_mean: Sequence[float], image_std: Sequence[float]) -> None:
        super().__init__()
        visual, config = model.model.visual, model.config.vision_config
        projection = visual.patch_embed.proj
        # A still image is the same frame twice, so that the two frames' weights act as their sum.
        self.patch_weight = nn.Buffer(projection.weight.detach().sum(2).flatten(1))  # (width, patch_bytes)
        self.patch_bias = projection.bias
        self.position_table = getattr(visual, "pos_embed", None)
        self.blocks = nn.ModuleList(_Block(block, int(config.num_heads)) for block in visual.blocks)
        self.merger = visual.merger
        self.deepstack_mergers = getattr(visual, "deepstack_merger_list", None)
        self.merge_size = int(config.spatial_merge_size)
        full = getattr(config, "fullatt_block_indexes", None)
        self.full_attention = [full is None or index in full for index in range(len(self.blocks))]
        self.blocks_per_window = 1
        if full is not None:
            self.blocks_per_window = int(config.window_size) // self.merge_size // int(config.patch_size)
        layers = list(getattr(config, "deepstack_visual_indexes", None) or ())
        self.deepstack = [layers.index(index) if index in layers else None for index in range(len(self.blocks))]
        self.embedding_dim = int(model.config.text_config.hidden_size)
        self.image_mean, self.image_std = list(image_mean), list(image_std)
        # A plain attribute, not a buffer: it stays in float32 when the module becomes float16.
        self.inverse_frequencies = visual.rotary_pos_emb.inv_freq.detach().clone()  # (head_dim / 4,)

    def forward(self, pixel_values: Tensor, image_grid_thw: Tensor) -> Tensor:
        """Embed images.

        Args:
            pixel_values: uint8, (batch_size, num_patches, patch_bytes): the images' patches one image after the
                other, each by blocks that are merged; channels first within a patch, RGB.
            image_grid_thw: int64, (batch_size, max_images, 3); zeros for no image.

        Returns:
            float32, (batch_size, num_patches / merge_size**2, embedding_dim * (1 + deepstack layers)).
        """
        rows, num_patches = pixel_values.shape[:2]
        layout = lay_out_patches(image_grid_thw, num_patches, self.merge_size)
        x = functional.linear(self._normalize(pixel_values), self.patch_weight, self.patch_bias)
        if self.position_table is not None:
            x = x + self._look_up_positions(layout).to(x.dtype)
        rotation = self._rotate(layout)
        windows = layout.image if all(self.full_attention) else self._number_windows(layout)
        masks: dict[tuple[bool, torch.dtype], Tensor] = {}
        embeddings: list[Tensor] = []
        for block, full, merger in zip(self.blocks, self.full_attention, self.deepstack, strict=True):
            kind = (full, cast(_Block, block).attn.qkv.weight.dtype)
            if kind not in masks:
                masks[kind] = _mask(layout.image if full else windows, kind[1])
            x = block(x, rotation, masks[kind])  # (batch_size, num_patches, width)
            if merger is not None and self.deepstack_mergers is not None:
                embeddings.append(self.deepstack_mergers[merger](x))
        embeddings.insert(0, self.merger(x))
        shape = (rows, num_patches // self.merge_size**2, self.embedding_dim)
        return torch.cat([embedding.reshape(shape).float() for embedding in embeddings], -1)

    def _normalize(self, pixel_values: Tensor) -> Tensor:
        rows, num_patches, patch_bytes = pixel_values.shape
        mean, std = (
            torch.tensor(values, device=pixel_values.device)[:, None] for values in (self.image_mean, self.image_std)
        )
        pixels = pixel_values.float().reshape(rows, num_patches, 3, patch_bytes // 3)
        pixels = (pixels / 255 - mean) / std
        return pixels.reshape(rows, num_patches, patch_bytes).to(self.patch_weight.dtype)

    def _look_up_positions(self, layout: PatchLayout) -> Tensor:
        """Interpolate the square table of learned positions bilinearly to the image's grid, corners aligned."""
        table = cast(nn.Embedding, self.position_table)
        side = int(table.num_embeddings**0.5)
        positions: Tensor | None = None
        for row, row_weight in _interpolate(layout.row, layout.height, side):
            for column, column_weight in _interpolate(layout.column, layout.width, side):
                share = table(row * side + column) * (row_weight * column_weight)[..., None]
                positions = share if positions is None else positions + share
        assert positions is not None
        return positions  # (batch_size, num_patches, width)

    def _rotate(self, layout: PatchLayout) -> tuple[Tensor, Tensor]:
        """Return cosine and sine of the rotary angles; float32, (batch_size, 1, num_patches, head_dim)."""
        frequencies = self.inverse_frequencies.to(layout.row.device)
        angles = torch.cat([place[..., None].float() * frequencies for place in (layout.row, layout.column)], -1)
        angles = torch.cat([angles, angles], -1)[:, None]
        return angles.cos(), angles.sin()

    def _number_windows(self, layout: PatchLayout) -> Tensor:
        """Return a number that patches share if they lie in one window of one image; int64, like ``row``."""
        side = self.merge_size * self.blocks_per_window
        return (layout.image * _WINDOWS_PER_SIDE + layout.row // side) * _WINDOWS_PER_SIDE + layout.column // side


class _Block(nn.Module):
    """A block of the tower.

    Args:
        block: transformers' block; its parameters are shared, not copied.
        num_heads: The number of attention heads.
    """

    def __init__(self, block: Any, num_heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.mlp = block.norm1, block.norm2, block.mlp
        self.attn = PatchAttention(block.attn, num_heads)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """Attend and transform, (batch_size, num_patches, width) to the same."""
        x = x + self.attn(self.norm1(x), rotation, mask)
        return x + cast(Tensor, self.mlp(self.norm2(x)))


class PatchAttention(nn.Module):
    """Attention of patches to each other: a part with a name, because it may have to stay in float32 as a whole."""

    def __init__(self, attention: Any, num_heads: int) -> None:
        super().__init__()
        self.qkv, self.proj, self.num_heads = attention.qkv, attention.proj, num_heads

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """Attend, (batch_size, num_patches, width) to the same."""
        rows, num_patches, width = x.shape
        heads = (rows, num_patches, 3, self.num_heads, width // self.num_heads)
        query, key, value = self.qkv(x).reshape(heads).permute(2, 0, 3, 1, 4).unbind(0)
        query, key = (_apply_rotation(part, rotation) for part in (query, key))
        query = query * (width // self.num_heads) ** -0.5  # not the scores: those may overflow before they are scaled
        scores = query @ key.transpose(2, 3) + mask  # (batch_size, num_heads, num_patches, num_patches)
        weights = torch.softmax(scores, -1, dtype=torch.float32).to(value.dtype)
        mixed = (weights @ value).transpose(1, 2).reshape(rows, num_patches, width)
        return cast(Tensor, self.proj(mixed))


def _mask(group: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what is added to attention scores so that a patch sees its group only.

    No row is masked as a whole, padding sees padding: softmax of nothing but -inf is NaN in ONNX Runtime.

    Args:
        group: The number of each patch's group: int64, (batch_size, num_patches).
        dtype: The scores' dtype; the mask's depth fits it.
    """
    same = group[:, None, :, None] == group[:, None, None, :]  # (batch_size, 1, num_patches, num_patches)
    return torch.where(same, 0.0, -1e4 if dtype == torch.float16 else -1e9).to(dtype)


def _apply_rotation(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    cosine, sine = rotation
    first, second = x.float().chunk(2, -1)
    return (x.float() * cosine + torch.cat([-second, first], -1) * sine).to(x.dtype)


def _interpolate(place: Tensor, size: Tensor, side: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return the two places of a table's side, int64, between which a patch lies, each with its float32 weight."""
    source = place.float() * (side - 1) / (size.float() - 1).clamp(min=1)
    below = source.floor()
    above_weight = source - below
    below_index = below.to(torch.int64).clamp(0, side - 1)
    return (below_index, 1 - above_weight), ((below_index + 1).clamp(max=side - 1), above_weight)
