"""What the encoders of Qwen-VL models take."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from lychee_client.manifest import PatchSpec
from numpy.typing import NDArray

from lychee_export.contract.limits import Limits
from lychee_export.contract.signature import Axis, ModelSignature, Tensors, TensorSpec
from lychee_export.families.qwen_vl.images import ImageSettings

__all__ = ["PatchInputs"]

_BUCKET_UNIT = 64
"""Least bucket of tokens and of patches; the others are multiples of it."""

_SAMPLE_SIZE = 128
"""Tokens and patches of a sample row: room for an image of several attention windows."""


@dataclass(frozen=True)
class PatchInputs:
    """What the two encoders of a Qwen-VL take, whatever is made of their states.

    Args:
        max_tokens: The length of the longest sequence.
        images: How images become patches.
        limits: What the deployment admits.
        embedding_dim: The width of ``image_embeds``.
        image_token_id: The token that stands for a block of patches.
        pad_token_id: The token that fills a sequence up to its bucket.
        vocab_size: The number of tokens.
    """

    max_tokens: int
    images: ImageSettings
    limits: Limits
    embedding_dim: int
    image_token_id: int
    pad_token_id: int
    vocab_size: int

    @cached_property
    def tokens(self) -> Axis:
        """The axis of ``input_ids``."""
        return Axis("sequence_length", _buckets(self.max_tokens))

    @cached_property
    def patches(self) -> Axis:
        """The axis of ``pixel_values``."""
        return Axis("num_patches", _buckets(self.images.max_patches), multiple=self.images.merge_size**2)

    @cached_property
    def texts(self) -> tuple[TensorSpec, TensorSpec]:
        """The tokens and which of them are no padding."""
        return (
            TensorSpec("input_ids", "int64", (self.tokens,), pad_value=self.pad_token_id, maximum=self.vocab_size - 1),
            TensorSpec("attention_mask", "int64", (self.tokens,), maximum=1),
        )

    @cached_property
    def image_embeds(self) -> TensorSpec:
        """What the vision encoder makes of a row's images."""
        block = self.images.merge_size**2
        image_tokens = Axis("num_image_tokens", (1, *(bucket // block for bucket in self.patches.buckets)))
        return TensorSpec("image_embeds", "float32", (image_tokens, self.embedding_dim))

    @property
    def embedded(self) -> tuple[TensorSpec, TensorSpec]:
        """What the text encoder gets of a row's images, beside the tokens."""
        return self.image_embeds, self.image_grid_thw

    @cached_property
    def image_grid_thw(self) -> TensorSpec:
        """The shapes of a row's images in patches."""
        return TensorSpec("image_grid_thw", "int64", (self.images.max_images, 3), maximum=self.patches.maximum)

    @cached_property
    def vision_encoder(self) -> ModelSignature:
        """The signature of the vision encoder."""
        return ModelSignature(
            "vision_encoder",
            (TensorSpec("pixel_values", "uint8", (self.patches, self.images.patch_bytes)), self.image_grid_thw),
            (self.image_embeds,),
            self.limits.image_batch,
            encoder=True,
            # The attention scores of one pair of the largest bucket.
            max_run_elements=self.patches.maximum * self.images.patch_bytes,
            accelerated=False,
        )

    @property
    def image_spec(self) -> PatchSpec:
        """What the client is told of images."""
        images = self.images
        return PatchSpec(
            patch_size=images.patch_size,
            merge_size=images.merge_size,
            min_pixels=images.min_pixels,
            max_pixels=images.max_pixels,
            resample=images.resample,
            buckets=self.patches.buckets,
            max_images=images.max_images,
            embedding_dim=self.embedding_dim,
        )

    def sample_images(self, rng: np.random.Generator, rows: int) -> Tensors:
        """Make inputs of the vision encoder: rows with different numbers and shapes of images."""
        count = min(_SAMPLE_SIZE, self.patches.maximum)
        shape = (rows, count, self.images.patch_bytes)
        return {
            "pixel_values": rng.integers(0, 256, shape, dtype=np.uint8),
            "image_grid_thw": self._sample_grids(rng, rows, count),
        }

    def sample_texts(self, rng: np.random.Generator, rows: int) -> Tensors:
        """Make inputs of the text encoder: texts with their images' tokens, padded right."""
        count = min(_SAMPLE_SIZE, self.patches.maximum)
        length = min(_SAMPLE_SIZE, self.tokens.maximum)
        grids = self._sample_grids(rng, rows, count)
        blocks = grids.prod(-1).sum(-1) // self.images.merge_size**2
        input_ids = rng.integers(0, self.image_token_id, (rows, length))
        attention_mask = np.zeros((rows, length), np.int64)
        for row, images in enumerate(blocks):
            start = int(rng.integers(0, 4))
            input_ids[row, start : start + images] = self.image_token_id
            attention_mask[row, : rng.integers(start + images + 1, length + 1)] = 1
        embeds = rng.standard_normal((rows, count // self.images.merge_size**2, self.embedding_dim))
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "image_embeds": embeds.astype(np.float32),
            "image_grid_thw": grids,
        }

    def _sample_grids(self, rng: np.random.Generator, rows: int, patches: int) -> NDArray[np.int64]:
        """Draw grids: in turn all images that a pair may have, one less, ... none."""
        grids = np.zeros((rows, self.images.max_images, 3), np.int64)
        for row in range(rows):
            images = self.images.max_images - row % (self.images.max_images + 1)
            for image in range(images):
                blocks = patches // images // self.images.merge_size**2
                height = int(rng.integers(1, blocks + 1))
                width = int(rng.integers(1, blocks // height + 1))
                grids[row, image] = (1, height * self.images.merge_size, width * self.images.merge_size)
        return grids


def _buckets(largest: int) -> tuple[int, ...]:
    """Return multiples of 64, each at most 1.5 times the one before but for the first, up to ``largest`` or more."""
    last = -(-largest // _BUCKET_UNIT)
    steps = [step << power for power in range(last.bit_length()) for step in (2, 3)]
    return tuple(_BUCKET_UNIT * step for step in sorted({1, *(step for step in steps if step < last), last}))
