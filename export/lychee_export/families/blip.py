"""BLIP image-text matching: a cross-encoder whose text encoder attends to the image's patches.

The score is the share of "match" in the two-way softmax of ``itm_head``, as transformers computes it with
``use_itm_head=True``: the text starts with [CLS], not with the [ENC] token of the authors' training code. A query is a
text, a document an image.

Source: transformers 5.23.0, models/blip/modeling_blip.py, BlipForImageTextRetrieval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lychee_client.manifest import GoldenInput, GoldenPair, ModelSpec, PromptSpec, TextSpec
from PIL import Image
from torch import Tensor, nn
from transformers import BlipForImageTextRetrieval
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.contract.limits import Limits
from lychee_export.contract.signature import SCORE_OUTPUTS, ModelSignature, Tensors, TensorSpec
from lychee_export.families.attention import attention_bias
from lychee_export.families.family import Checkpoint, Family, ModelCard, Piece, Reference, round_score
from lychee_export.families.fixed_image import (
    FixedImageSpec,
    Normalization,
    image_tensor,
    load_processor,
    prepare_image,
    read_format,
)
from lychee_export.families.samples import QUERIES, TEXTS, encode, sample_images
from lychee_export.families.text_format import TextFormat, plain_tokenizer, text_buckets, tokenize

__all__ = ["FAMILY", "ScoringHead", "TextEncoder", "VisionEncoder", "load"]

_IMAGES_PER_RUN = 4
_PAIRS_PER_RUN = 8
_NO_MATCH, _MATCH = 0, 1
"""Rows of the head."""
_GOLDEN_PAIRS = ((0, 0), (1, 0), (1, 1), (4, 1), (3, 2), (2, 2))
"""Indices of (query, image)."""


class VisionEncoder(nn.Module):
    """Encode images, patch by patch.

    Args:
        model: The transformers model; its weights are shared, not copied.
        normalization: The normalization that the checkpoint's image processor does.
    """

    def __init__(self, model: BlipForImageTextRetrieval, normalization: Normalization) -> None:
        super().__init__()
        self.normalization = normalization
        self.vision_model = model.vision_model

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Encode images.

        Args:
            pixel_values: uint8, (batch_size, 3, height, width), RGB.

        Returns:
            float32, (batch_size, num_patches + 1, hidden_size).
        """
        hidden: Tensor = self.vision_model(pixel_values=self.normalization(pixel_values)).last_hidden_state
        return hidden.float()


class TextEncoder(nn.Module):
    """Encode a text that attends to an image.

    Args:
        model: The transformers model; its weights are shared, not copied.
    """

    def __init__(self, model: BlipForImageTextRetrieval) -> None:
        super().__init__()
        self.text_encoder = model.text_encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor, image_embeds: Tensor) -> Tensor:
        """Encode pairs.

        Args:
            input_ids: int64, (batch_size, sequence_length).
            attention_mask: int64, (batch_size, sequence_length), 1 for a token, 0 for padding.
            image_embeds: float32, (batch_size, num_patches + 1, hidden_size of the vision encoder).

        Returns:
            The states of the first tokens, float32, (batch_size, hidden_size).
        """
        dtype = self.text_encoder.embeddings.word_embeddings.weight.dtype
        hidden: Tensor = self.text_encoder(
            input_ids=input_ids,
            attention_mask=attention_bias(attention_mask, dtype),
            encoder_hidden_states=image_embeds.to(dtype),
        ).last_hidden_state
        return hidden[:, 0].float()


class ScoringHead(nn.Module):
    """Score pairs: the difference of the head's two rows, whose sigmoid is the two-way softmax.

    Args:
        itm_head: The matching head of the transformers model, which has two outputs; the module keeps only their
            difference.
    """

    def __init__(self, itm_head: nn.Linear) -> None:
        super().__init__()
        weight, bias = itm_head.weight.detach(), itm_head.bias.detach()
        self.weight = nn.Buffer(weight[_MATCH] - weight[_NO_MATCH])  # (hidden_size,)
        self.bias = nn.Buffer(bias[_MATCH] - bias[_NO_MATCH])  # ()

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Score pairs.

        Args:
            hidden: float32, (batch_size, hidden_size).

        Returns:
            relevance_score, float32, (batch_size, 1), in [0, 1]; logits, the same before the sigmoid, unbounded.
        """
        logits = (hidden * self.weight.float()).sum(-1, keepdim=True) + self.bias.float()
        return torch.sigmoid(logits), logits


def load(source: CheckpointSource, limits: Limits) -> Checkpoint:
    """Load a BLIP checkpoint that was trained for image-text matching.

    Raises:
        CheckpointError: A file is missing or damaged, or does not fit the others; the checkpoint has no matching head.
    """
    model: Any = source.load_model(BlipForImageTextRetrieval)
    tokenizer = source.load_tokenizer()
    processor = load_processor(source, BlipImageProcessorPil)
    text_config, size = model.config.text_config, model.config.vision_config.image_size
    tokenizer_json = plain_tokenizer(source, tokenizer, text_config.vocab_size).to_str()
    text = TextFormat(
        vocab_size=text_config.vocab_size,
        pad_token_id=tokenizer.pad_token_id,
        buckets=text_buckets(source, limits, text_config.max_position_embeddings, tokenizer.model_max_length),
    )
    image = read_format(source, processor, size, size)
    pieces, ensembles = _sign(model, limits, text, image, Normalization.of(processor))
    spec = ModelSpec(
        family="blip",
        pipeline="cross_encoder",
        model_id=source.model_id,
        revision=source.revision,
        text=TextSpec(pad_token_id=text.pad_token_id, max_tokens=text.max_tokens, buckets=text.buckets),
        prompt=PromptSpec(
            template="{query}",
            image="",
            image_token="",
            missing_text="",
            suffix_token_ids=(),
            queries=("text",),
            documents=("image",),
        ),
        image=image,
    )
    card = ModelCard(spec, ensembles, tokenizer_json)

    def make_reference() -> Reference:
        images = sample_images()
        rows = tokenize(tokenizer_json, text, TEXTS)
        pixels = np.stack([prepare_image(processor, picture) for picture in images])
        rows["pixel_values"] = pixels[np.arange(len(TEXTS)) % len(pixels)]
        pngs = [encode(picture) for picture in images]
        scores = _score(
            model, tokenizer, processor, [(QUERIES[query], images[index]) for query, index in _GOLDEN_PAIRS]
        )
        pairs = tuple(
            GoldenPair(GoldenInput(QUERIES[query]), GoldenInput(image_png=pngs[index]), round_score(score))
            for (query, index), score in zip(_GOLDEN_PAIRS, scores, strict=True)
        )
        return Reference({"rerank_image": rows}, pairs)

    return Checkpoint(card, pieces, make_reference)


def _sign(
    model: Any, limits: Limits, text: TextFormat, image: FixedImageSpec, normalization: Normalization
) -> tuple[tuple[Piece, ...], tuple[ModelSignature, ...]]:
    """Declare the family's tensor contract."""
    vision = model.config.vision_config
    num_patches = (vision.image_size // vision.patch_size) ** 2
    image_embeds = TensorSpec("image_embeds", "float32", (num_patches + 1, vision.hidden_size))
    hidden = TensorSpec("hidden", "float32", (model.config.text_config.hidden_size,))
    batch = min(limits.text_batch, limits.image_batch)
    vision_signature = ModelSignature(
        "vision_encoder",
        (image_tensor(image),),
        (image_embeds,),
        batch,
        encoder=True,
        max_run_elements=_IMAGES_PER_RUN * 3 * image.height * image.width,
    )
    text_signature = ModelSignature(
        "text_encoder",
        (*text.tensors, image_embeds),
        (hidden,),
        batch,
        encoder=True,
        max_run_elements=_PAIRS_PER_RUN * (num_patches + 1) * vision.hidden_size,
    )
    head_signature = ModelSignature("scoring_head", (hidden,), SCORE_OUTPUTS, batch)
    ensemble = ModelSignature(
        "rerank_image",
        (*text.tensors, image_tensor(image)),
        SCORE_OUTPUTS,
        batch,
        steps=(vision_signature, text_signature, head_signature),
    )

    def sample_image(rng: np.random.Generator, rows: int) -> Tensors:
        return {"pixel_values": rng.integers(0, 256, (rows, 3, image.height, image.width), dtype=np.uint8)}

    def sample_pair(rng: np.random.Generator, rows: int) -> Tensors:
        embeds = rng.standard_normal((rows, *image_embeds.triton_dims)).astype(np.float32)
        return text.sample(rng, rows) | {"image_embeds": embeds}

    def sample_hidden(rng: np.random.Generator, rows: int) -> Tensors:
        return {"hidden": rng.standard_normal((rows, *hidden.triton_dims)).astype(np.float32)}

    pieces = (
        Piece(vision_signature, VisionEncoder(model, normalization).eval(), sample_image),
        Piece(text_signature, TextEncoder(model).eval(), sample_pair),
        Piece(head_signature, ScoringHead(model.itm_head).eval(), sample_hidden),
    )
    return pieces, (ensemble,)


@torch.no_grad()
def _score(model: Any, tokenizer: Any, processor: Any, pairs: Sequence[tuple[str, Image.Image]]) -> list[float]:
    """Score pairs with transformers alone."""
    scores = []
    for query, image in pairs:
        inputs = tokenizer(query, return_tensors="pt", truncation=True)
        logits = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            pixel_values=processor(image, return_tensors="pt")["pixel_values"],
            use_itm_head=True,
        ).itm_score  # (1, 2)
        scores.append(float(logits.softmax(-1)[0, _MATCH]))
    return scores


FAMILY = Family(
    name="blip",
    model_types=("blip",),
    load=load,
    checkpoints=("Salesforce/blip-itm-base-coco", "Salesforce/blip-itm-large-coco"),
)
