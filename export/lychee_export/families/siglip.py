"""SigLIP and SigLIP 2: dual encoders that were trained with a sigmoid for each image-text pair.

So the score of an image is the model's own: ``sigmoid(scale * cosine + bias)``. For a text document there is no such
bias; TEXT_CENTRE takes its place and is no calibration.

The text encoder reads the last token, which may be padding: every text is padded to the one length of the training,
and the encoder attends to the padding. ``attention_mask`` says where to write the padding token.

A NaFlex checkpoint (``siglip2``) reads any aspect ratio with at most so many patches. Here every image is stretched to
the square grid of so many patches, whose resized position table is part of the export: images of another aspect ratio
get other embeddings than from NaFlex itself.

Source: transformers 5.23.0, models/siglip/modeling_siglip.py and models/siglip2/modeling_siglip2.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from lychee_client.manifest import StretchSpec
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from transformers import Siglip2Model, SiglipModel
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil
from transformers.models.siglip2.modeling_siglip2 import Siglip2VisionEmbeddings

from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.contract.limits import Limits
from lychee_export.errors import CheckpointError
from lychee_export.families.dual_encoder import DualEncoder, build_checkpoint, make_heads
from lychee_export.families.dual_reference import ReferenceEncoders
from lychee_export.families.family import Checkpoint, Family
from lychee_export.families.fixed_image import (
    FixedImageSpec,
    Normalization,
    PooledVisionEncoder,
    load_processor,
    prepare_image,
    read_format,
    read_resampling,
)
from lychee_export.families.samples import encode, sample_images
from lychee_export.families.siglip_tokenizer import canonical_tokenizer, is_canonical, lower_cased
from lychee_export.families.text_format import TextFormat, plain_tokenizer

__all__ = ["FAMILY", "NaFlexVisionEncoder", "TextEncoder", "load"]

_NAFLEX = "siglip2"
_RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


class TextEncoder(nn.Module):
    """Embed texts of the one length.

    Args:
        model: The transformers model; its weights are shared, not copied.
        pad_token_id: The padding token that the model was trained to read after a text, or before it.
        pad_left: Whether the padding stands before the text.
    """

    def __init__(self, model: SiglipModel | Siglip2Model, pad_token_id: int, *, pad_left: bool) -> None:
        super().__init__()
        self.text_model = model.text_model
        self.pad_token_id = pad_token_id
        self.pad_left = pad_left

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed texts.

        Args:
            input_ids: int64, (batch_size, sequence_length), padded on the right.
            attention_mask: int64, (batch_size, sequence_length), 1 for a token, 0 for padding.

        Returns:
            float32, (batch_size, embedding_dim), rows of unit length.
        """
        kept = attention_mask > 0  # (batch_size, sequence_length)
        if self.pad_left:
            padding = attention_mask.shape[1] - attention_mask.sum(1, keepdim=True)  # (batch_size, 1)
            position = torch.arange(attention_mask.shape[1], device=input_ids.device) - padding
            input_ids = input_ids.gather(1, position.clamp(min=0))
            kept = position >= 0
        ids = torch.where(kept, input_ids, self.pad_token_id)
        features = self.text_model(input_ids=ids).pooler_output
        return functional.normalize(features.float(), dim=-1)


class NaFlexVisionEncoder(nn.Module):
    """Embed images on one square grid of patches.

    Args:
        model: The transformers model; its weights are shared, not copied, except for the resized position table.
        normalization: The normalization that the checkpoint's image processor does.
        grid: How many patches the grid has along an edge.
    """

    def __init__(self, model: Siglip2Model, normalization: Normalization, grid: int) -> None:
        super().__init__()
        vision = model.vision_model
        self.normalization = normalization
        self.patch_embedding = vision.embeddings.patch_embedding
        self.encoder = vision.encoder
        self.post_layernorm = vision.post_layernorm
        self.head = vision.head
        self.patch_size = vision.embeddings.patch_size
        self.grid = grid
        size = vision.embeddings.position_embedding_size
        with torch.no_grad():
            positions = Siglip2VisionEmbeddings.resize_positional_embeddings(
                vision.embeddings.position_embedding.weight.reshape(size, size, -1),
                torch.LongTensor([[grid, grid]]),
                max_length=grid * grid,
            )
        self.positions = nn.Buffer(positions)  # (1, num_patches, hidden_size)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Embed images, as PooledVisionEncoder does."""
        edge, side = self.grid, self.patch_size
        pixels = self.normalization(pixel_values).reshape(-1, 3, edge, side, edge, side)
        patches = pixels.permute(0, 2, 4, 3, 5, 1).reshape(-1, edge * edge, side * side * 3)  # channels last
        hidden = self.patch_embedding(patches.to(self.positions.dtype)) + self.positions
        hidden = self.post_layernorm(self.encoder(inputs_embeds=hidden).last_hidden_state)
        return functional.normalize(self.head(hidden).float(), dim=-1)


def load(source: CheckpointSource, limits: Limits) -> Checkpoint:
    """Load a SigLIP or SigLIP 2 checkpoint.

    Raises:
        CheckpointError: A file is missing or damaged, or does not fit the others.
    """
    naflex = source.config["model_type"] == _NAFLEX
    model: Any = source.load_model(Siglip2Model if naflex else SiglipModel)
    text, vision = model.config.text_config, model.config.vision_config
    if not vision.vision_use_head:
        raise CheckpointError(f"the model in {source.folder} has no pooling head (vision_use_head is false)")
    tokenizer, pad_token_id, pad_left = _load_tokenizer(source, text.vocab_size)
    tokenizer_json = tokenizer.to_str()
    processor = load_processor(source, Siglip2ImageProcessorPil if naflex else SiglipImageProcessorPil)
    vision_encoder: nn.Module
    image_spec: FixedImageSpec
    if naflex:
        side = processor.patch_size
        grid = math.isqrt(processor.max_num_patches)
        if limits.max_img_size is not None:
            grid = min(grid, max(1, limits.max_img_size // side))
        vision_encoder = NaFlexVisionEncoder(model, Normalization.of(processor), grid)
        image_spec = StretchSpec(grid * side, grid * side, read_resampling(source, processor))
    else:
        vision_encoder = PooledVisionEncoder(model.vision_model, Normalization.of(processor))
        image_spec = read_format(source, processor, vision.image_size, vision.image_size)
    scale, bias = (1.0, 0.0)
    if source.weights:
        scale, bias = float(model.logit_scale.detach().exp()), float(model.logit_bias.detach())
    parts = DualEncoder(
        text_encoder=TextEncoder(model, pad_token_id, pad_left=pad_left),
        vision_encoder=vision_encoder,
        heads=make_heads(scale, bias),
        embedding_dim=text.projection_size,
        text=TextFormat(text.vocab_size, pad_token_id, (text.max_position_embeddings,)),
        image=image_spec,
    )

    def load_reference() -> ReferenceEncoders:
        reader = Tokenizer.from_str(tokenizer_json)
        reader.enable_truncation(parts.text.max_tokens)
        direction = "left" if pad_left else "right"
        reader.enable_padding(direction=direction, pad_id=pad_token_id, length=parts.text.max_tokens)

        @torch.no_grad()
        def embed_texts(texts: Sequence[str]) -> Tensor:
            ids = torch.tensor([encoding.ids for encoding in reader.encode_batch(list(texts))])
            return functional.normalize(cast(Tensor, model.get_text_features(ids).pooler_output), dim=-1)

        def prepare(image: Image.Image) -> NDArray[np.uint8]:
            return _stretch(image, image_spec) if naflex else prepare_image(processor, image)

        @torch.no_grad()
        def embed_image(image: Image.Image) -> Tensor:
            if naflex:
                image = Image.fromarray(_stretch(image, image_spec).transpose(1, 2, 0))
            inputs = processor(image, return_tensors="pt", **({"do_resize": False} if naflex else {}))
            return functional.normalize(cast(Tensor, model.get_image_features(**inputs).pooler_output), dim=-1)

        images = sample_images()
        pixels = np.stack([prepare(image) for image in images])
        embeddings = torch.cat([embed_image(image) for image in images])
        return ReferenceEncoders(embed_texts, embed_image, pixels, embeddings, [encode(image) for image in images])

    return build_checkpoint(source, "siglip", limits, parts, tokenizer_json, load_reference)


def _load_tokenizer(source: CheckpointSource, vocab_size: int) -> tuple[Tokenizer, int, bool]:
    """Return the tokenizer, its padding token's id and whether the padding stands on the left."""
    if source.config["model_type"] != _NAFLEX and is_canonical(source):
        canonical, pad_token_id = canonical_tokenizer(source)
        if canonical.get_vocab_size() > vocab_size:
            raise CheckpointError(
                f"the tokenizer in {source.folder} has {canonical.get_vocab_size()} tokens, the model has embeddings "
                f"for {vocab_size}; they belong to different models"
            )
        return canonical, pad_token_id, False
    loaded = source.load_tokenizer()
    plain = lower_cased(plain_tokenizer(source, loaded, vocab_size))
    return plain, loaded.pad_token_id, loaded.padding_side == "left"


def _stretch(image: Image.Image, image_spec: FixedImageSpec) -> NDArray[np.uint8]:
    """Return uint8, (3, height, width)."""
    size = (image_spec.width, image_spec.height)
    return np.asarray(image.convert("RGB").resize(size, _RESAMPLING[image_spec.resample])).transpose(2, 0, 1)


FAMILY = Family(
    name="siglip",
    model_types=("siglip", _NAFLEX),
    load=load,
    checkpoints=(
        "google/siglip-base-patch16-224",
        "google/siglip2-base-patch16-224",
        "google/siglip2-base-patch16-naflex",
    ),
)
