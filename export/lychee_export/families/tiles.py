"""Images of one size, or cut into tiles of one size, whose tokens stand in a prompt: what encoders of such models take.

Shared by Llama Nemotron VL and ColPali.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import numpy as np
import torch
from lychee_client.manifest import TileSpec, count_read_tiles
from torch import Tensor, nn

from lychee_export.contract.limits import Limits
from lychee_export.contract.signature import Axis, ModelSignature, Tensors, TensorSpec
from lychee_export.families.text_format import TextFormat, pad_ids

__all__ = ["TileInputs", "TileVisionEncoder"]


@dataclass(frozen=True)
class TileInputs:
    """What the two encoders take, whatever is made of their states.

    Args:
        text: How texts become tokens.
        image: How images become tiles.
        limits: What the deployment admits.
        image_token_id: The token that stands for a part of an image.
    """

    text: TextFormat
    image: TileSpec
    limits: Limits
    image_token_id: int

    @property
    def image_spec(self) -> TileSpec:
        """What the client is told of images."""
        return self.image

    @property
    def texts(self) -> tuple[TensorSpec, TensorSpec]:
        """The tokens, and which of them are no padding."""
        return self.text.tensors

    @property
    def tokens(self) -> Axis:
        """The axis of ``input_ids``."""
        return Axis("sequence_length", self.text.buckets)

    @property
    def max_tokens(self) -> int:
        """The length of the longest sequence."""
        return self.text.max_tokens

    @property
    def pad_token_id(self) -> int:
        """The token that fills a sequence up to its bucket."""
        return self.text.pad_token_id

    @cached_property
    def tiles(self) -> Axis:
        """How many tiles an image may be read as: those of a grid, and one more where there are several."""
        return Axis("num_tiles", tuple(count_read_tiles(tiles + 1) for tiles in range(self.image.max_tiles)))

    @cached_property
    def image_embeds(self) -> TensorSpec:
        """What the vision encoder makes of a row's image; one of them stands for no image."""
        counts = (self.image.tile_tokens * tiles for tiles in self.tiles.buckets)
        image_tokens = Axis("num_image_tokens", tuple(sorted({1, *counts})))
        return TensorSpec("image_embeds", "float32", (image_tokens, self.image.embedding_dim))

    @property
    def embedded(self) -> tuple[TensorSpec]:
        """What the text encoder gets of a row's images, beside the tokens."""
        return (self.image_embeds,)

    @cached_property
    def vision_encoder(self) -> ModelSignature:
        """The signature of the vision encoder."""
        edge, tiles, embeds = self.image.tile_size, self.tiles, self.image_embeds
        pixels = TensorSpec("pixel_values", "uint8", (tiles, 3, edge, edge))
        if len(tiles.buckets) == 1:  # all images have one size
            pixels = replace(pixels, shape=(tiles.maximum, 3, edge, edge))
            embeds = replace(embeds, shape=(self.image.tile_tokens, self.image.embedding_dim))
        return ModelSignature(
            "vision_encoder",
            (pixels,),
            (embeds,),
            self.limits.image_batch,
            encoder=True,
            max_run_elements=self.tiles.maximum * 3 * edge * edge,
            accelerated=False,
        )

    def pad_texts(self, prompts: Sequence[Sequence[int]], *, padded: bool = True) -> Tensors:
        """Pad token ids to a common bucket.

        Args:
            prompts: The token ids of each row.
            padded: Whether to leave a larger bucket, for the check of padding; otherwise they may fill all.
        """
        buckets = (self.text.buckets[:-1] if padded else ()) or self.text.buckets
        longest = max(map(len, prompts))
        length = next((bucket for bucket in buckets if bucket >= longest), self.text.max_tokens)
        return pad_ids(prompts, length, self.text.pad_token_id)

    def without_images(self, rows: int) -> Tensors:
        """Return what rows without images have in their place."""
        return {"image_embeds": np.zeros((rows, 1, self.image.embedding_dim), np.float32)}

    def sample_images(self, rng: np.random.Generator, rows: int) -> Tensors:
        """Make inputs of the vision encoder: images of the second smallest number of tiles, if there is one."""
        tiles = self.tiles.buckets[min(1, len(self.tiles.buckets) - 1)]
        edge = self.image.tile_size
        return {"pixel_values": rng.integers(0, 256, (rows, tiles, 3, edge, edge), dtype=np.uint8)}

    def sample_texts(self, rng: np.random.Generator, rows: int) -> Tensors:
        """Make inputs of the text encoder: every second row with an image's tokens, padded right."""
        count = self.image.tile_tokens
        length = next(bucket for bucket in self.text.buckets if bucket >= min(count + 16, self.text.max_tokens))
        input_ids = rng.integers(0, self.image_token_id, (rows, length))
        mask = np.arange(length) < rng.integers(count + 8, length + 1, rows)[:, None]
        input_ids[::2, 2 : 2 + count] = self.image_token_id
        embeds = rng.standard_normal((rows, count, self.image.embedding_dim)).astype(np.float32)
        return {
            "input_ids": np.where(mask, input_ids, self.text.pad_token_id),
            "attention_mask": mask.astype(np.int64),
            "image_embeds": embeds,
        }


class TileVisionEncoder(nn.Module):
    """Embed the tiles of a row's image.

    Args:
        vision_model: The ``SiglipVisionModel``; its weights are shared, not copied.
        projector: What makes tokens of the language model's width of a tile's patches; shared too.
        pixel_table: What each byte is to the model, float32, (256,).
    """

    def __init__(self, vision_model: nn.Module, projector: nn.Module, pixel_table: Tensor) -> None:
        super().__init__()
        self.vision_model, self.projector = vision_model, projector
        # A plain attribute, not a buffer: it stays as it is when the module becomes float16.
        self.pixel_table = pixel_table

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
        embeds = cast(Tensor, self.projector(patches))  # (rows * tiles, tile_tokens, hidden_size)
        return embeds.float().reshape(rows, tiles * embeds.shape[1], embeds.shape[2])
