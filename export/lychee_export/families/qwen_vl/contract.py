"""The family's tensor contract and sample inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lychee_export.contract.limits import Limits
from lychee_export.contract.signature import SCORE_OUTPUTS, Axis, ModelSignature, Tensors, TensorSpec
from lychee_export.families.qwen_vl.images import ImageSettings
from lychee_export.families.template import Template

__all__ = ["Contract", "declare_contract"]

_BUCKET_UNIT = 64
"""Least bucket of tokens and of patches; the others are multiples of it."""

_SAMPLE_SIZE = 128
"""Tokens and patches of a sample row: room for an image of several attention windows."""

_TOKENS_PER_RUN = 4096


@dataclass(frozen=True)
class Contract:
    """Signatures of the models, and what their axes hold.

    Args:
        max_tokens: The length of the longest sequence.
        tokens: The axis of ``input_ids``.
        patches: The axis of ``pixel_values``.
        image_tokens: The axis of ``image_embeds``.
        images: How images become patches.
        embedding_dim: The width of ``image_embeds``.
        hidden_dim: The width of ``hidden``.
        vision_encoder: The signature of the vision encoder.
        text_encoder: The signature of the text encoder.
        scoring_head: The signature of the scoring head.
        ensembles: The ensembles that the model's prompt has a use for.
        image_token_id: The token that stands for a block of patches.
    """

    max_tokens: int
    tokens: Axis
    patches: Axis
    image_tokens: Axis
    images: ImageSettings
    embedding_dim: int
    hidden_dim: int
    vision_encoder: ModelSignature
    text_encoder: ModelSignature
    scoring_head: ModelSignature
    ensembles: tuple[ModelSignature, ...]
    image_token_id: int

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

    def sample_hidden(self, rng: np.random.Generator, rows: int) -> Tensors:
        """Make inputs of the scoring head."""
        return {"hidden": rng.standard_normal((rows, self.hidden_dim)).astype(np.float32)}

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


def declare_contract(
    images: ImageSettings,
    template: Template,
    limits: Limits,
    *,
    max_tokens: int,
    embedding_dim: int,
    hidden_dim: int,
    image_token_id: int,
    pad_token_id: int,
    vocab_size: int,
) -> Contract:
    """Declare the contract within the limits.

    Args:
        images: How images become patches.
        template: The prompt.
        limits: What the deployment admits.
        max_tokens: The length of the longest sequence.
        embedding_dim: The width of ``image_embeds``.
        hidden_dim: The width of ``hidden``.
        image_token_id: The token that stands for a block of patches.
        pad_token_id: The token that fills a sequence up to its bucket.
        vocab_size: The number of tokens.
    """
    block = images.merge_size**2
    tokens = Axis("sequence_length", _buckets(max_tokens))
    patches = Axis("num_patches", _buckets(images.max_patches), multiple=block)
    image_tokens = Axis("num_image_tokens", (1, *(bucket // block for bucket in patches.buckets)))
    input_ids = TensorSpec("input_ids", "int64", (tokens,), pad_value=pad_token_id, maximum=vocab_size - 1)
    attention_mask = TensorSpec("attention_mask", "int64", (tokens,), maximum=1)
    pixel_values = TensorSpec("pixel_values", "uint8", (patches, images.patch_bytes))
    image_grid_thw = TensorSpec("image_grid_thw", "int64", (images.max_images, 3), maximum=patches.maximum)
    image_embeds = TensorSpec("image_embeds", "float32", (image_tokens, embedding_dim))
    hidden = TensorSpec("hidden", "float32", (hidden_dim,))
    most_rows = max(limits.text_batch, limits.image_batch)
    vision_encoder = ModelSignature(
        "vision_encoder",
        (pixel_values, image_grid_thw),
        (image_embeds,),
        limits.image_batch,
        encoder=True,
        # The attention scores of one pair of the largest bucket.
        max_run_elements=patches.maximum * images.patch_bytes,
        accelerated=False,
    )
    text_encoder = ModelSignature(
        "text_encoder",
        (input_ids, attention_mask, image_embeds, image_grid_thw),
        (hidden,),
        most_rows,
        encoder=True,
        max_run_elements=max(_TOKENS_PER_RUN, tokens.maximum),
        run_input=input_ids.name,
        accelerated=False,
    )
    scoring_head = ModelSignature("scoring_head", (hidden,), SCORE_OUTPUTS, most_rows)
    rerank_text = ModelSignature(
        "rerank_text",
        (input_ids, attention_mask, image_embeds, image_grid_thw),
        SCORE_OUTPUTS,
        limits.text_batch,
        steps=(text_encoder, scoring_head),
    )
    rerank_image = ModelSignature(
        "rerank_image",
        (input_ids, attention_mask, pixel_values, image_grid_thw),
        SCORE_OUTPUTS,
        limits.image_batch,
        steps=(vision_encoder, text_encoder, scoring_head),
    )
    return Contract(
        max_tokens=max_tokens,
        tokens=tokens,
        patches=patches,
        image_tokens=image_tokens,
        images=images,
        embedding_dim=embedding_dim,
        hidden_dim=hidden_dim,
        vision_encoder=vision_encoder,
        text_encoder=text_encoder,
        scoring_head=scoring_head,
        ensembles=(rerank_text, rerank_image) if template.reads("text", "text") else (rerank_image,),
        image_token_id=image_token_id,
    )


def _buckets(largest: int) -> tuple[int, ...]:
    """Return multiples of 64, each at most 1.5 times the one before but for the first, up to ``largest`` or more."""
    last = -(-largest // _BUCKET_UNIT)
    steps = [step << power for power in range(last.bit_length()) for step in (2, 3)]
    return tuple(_BUCKET_UNIT * step for step in sorted({1, *(step for step in steps if step < last), last}))
