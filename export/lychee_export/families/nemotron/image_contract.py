"""The tensor contract of Llama Nemotron VL, and sample inputs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from lychee_client.manifest import TileSpec, count_read_tiles

from lychee_export.contract.limits import Limits
from lychee_export.contract.signature import SCORE_OUTPUTS, Axis, ModelSignature, Tensors, TensorSpec
from lychee_export.families.text_format import TextFormat

__all__ = ["ImageContract"]

_TOKENS_PER_RUN = 4096


@dataclass(frozen=True)
class ImageContract:
    """Signatures of the models, and what their axes hold.

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

    @cached_property
    def tiles(self) -> Axis:
        """How many tiles an image may be read as: those of a grid, and one more where there are several."""
        return Axis("num_tiles", tuple(count_read_tiles(tiles + 1) for tiles in range(self.image.max_tiles)))

    @cached_property
    def image_tokens(self) -> Axis:
        """How many embeddings an image may have; 1 stands for no image."""
        counts = (self.image.tile_tokens * tiles for tiles in self.tiles.buckets)
        return Axis("num_image_tokens", tuple(sorted({1, *counts})))

    @cached_property
    def vision_encoder(self) -> ModelSignature:
        """The signature of the vision encoder."""
        edge = self.image.tile_size
        return ModelSignature(
            "vision_encoder",
            (TensorSpec("pixel_values", "uint8", (self.tiles, 3, edge, edge)),),
            (self._image_embeds,),
            self.limits.image_batch,
            encoder=True,
            max_run_elements=self.tiles.maximum * 3 * edge * edge,
            accelerated=False,
        )

    @cached_property
    def text_encoder(self) -> ModelSignature:
        """The signature of the text encoder."""
        return ModelSignature(
            "text_encoder",
            (*self.text.tensors, self._image_embeds),
            (self._hidden,),
            self._most_rows,
            encoder=True,
            max_run_elements=max(_TOKENS_PER_RUN, self.text.max_tokens),
            run_input="input_ids",
            accelerated=False,
        )

    @cached_property
    def scoring_head(self) -> ModelSignature:
        """The signature of the scoring head."""
        return ModelSignature("scoring_head", (self._hidden,), SCORE_OUTPUTS, self._most_rows)

    @cached_property
    def rerank_text(self) -> ModelSignature:
        """The ensemble for documents without an image."""
        return ModelSignature(
            "rerank_text",
            (*self.text.tensors, self._image_embeds),
            SCORE_OUTPUTS,
            self.limits.text_batch,
            steps=(self.text_encoder, self.scoring_head),
        )

    @cached_property
    def rerank_image(self) -> ModelSignature:
        """The ensemble for documents with one."""
        return ModelSignature(
            "rerank_image",
            (*self.text.tensors, *self.vision_encoder.inputs),
            SCORE_OUTPUTS,
            self.limits.image_batch,
            steps=(self.vision_encoder, self.text_encoder, self.scoring_head),
        )

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

    def sample_hidden(self, rng: np.random.Generator, rows: int) -> Tensors:
        """Make inputs of the scoring head."""
        return {"hidden": rng.standard_normal((rows, self.image.embedding_dim)).astype(np.float32)}

    @property
    def _image_embeds(self) -> TensorSpec:
        return TensorSpec("image_embeds", "float32", (self.image_tokens, self.image.embedding_dim))

    @property
    def _hidden(self) -> TensorSpec:
        return TensorSpec("hidden", "float32", (self.image.embedding_dim,))

    @property
    def _most_rows(self) -> int:
        return max(self.limits.text_batch, self.limits.image_batch)
