"""CLIP and Chinese-CLIP: dual encoders that were trained with a softmax over the pairs of a batch.

An embedding is the projected feature of unit length, as ``get_text_features`` and ``get_image_features`` give it.
Such training fixes the differences between a query's logits and leaves open where "relevant" begins: the heads
subtract a constant, IMAGE_CENTRE or TEXT_CENTRE, which is no calibration. The order of documents of one modality is
the model's; for decisions, run ``lychee calibrate``.

Source: transformers 5.23.0, models/clip/modeling_clip.py and models/chinese_clip/modeling_chinese_clip.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from transformers import ChineseCLIPModel, CLIPModel
from transformers.models.chinese_clip.image_processing_pil_chinese_clip import ChineseCLIPImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.contract.limits import Limits
from lychee_export.families.attention import attention_bias
from lychee_export.families.dual_encoder import DualEncoder, build_checkpoint, make_heads
from lychee_export.families.dual_reference import ReferenceEncoders
from lychee_export.families.family import Checkpoint, Family
from lychee_export.families.fixed_image import (
    Normalization,
    PooledVisionEncoder,
    load_processor,
    prepare_image,
    read_format,
)
from lychee_export.families.samples import encode, sample_images
from lychee_export.families.text_format import TextFormat, plain_tokenizer, text_buckets

__all__ = ["FAMILY", "IMAGE_CENTRE", "ChineseTextEncoder", "TextEncoder", "load"]

IMAGE_CENTRE = 0.25
"""Cosine of a text and an image that scores 0.5. Matching pairs of openai/clip-vit-base-patch32 lie around 0.3,
others around 0.2; this is no calibration."""

_CHINESE = "chinese_clip"
_LEGACY_EOS_TOKEN_ID = 2
"""What old checkpoints say by mistake: then the text ends at its largest token id, as in OpenAI's code."""


class TextEncoder(nn.Module):
    """Embed texts with CLIP: the feature of the end token, projected.

    Args:
        model: The transformers model; its weights are shared, not copied.
    """

    def __init__(self, model: CLIPModel) -> None:
        super().__init__()
        self.text_model = model.text_model
        self.text_projection = model.text_projection
        eos_token_id = int(cast(Any, model.config.text_config).eos_token_id)
        self.eos_token_id = None if eos_token_id == _LEGACY_EOS_TOKEN_ID else eos_token_id

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed texts.

        Args:
            input_ids: int64, (batch_size, sequence_length).
            attention_mask: int64, (batch_size, sequence_length), 1 for a token, 0 for padding.

        Returns:
            float32, (batch_size, embedding_dim), rows of unit length.
        """
        bias = attention_bias(attention_mask, self.text_projection.weight.dtype, causal=True)
        hidden = self.text_model(input_ids=input_ids, attention_mask=bias).last_hidden_state
        features = hidden[torch.arange(hidden.shape[0], device=hidden.device), self._find_end(input_ids)]
        return functional.normalize(self.text_projection(features).float(), dim=-1)

    def _find_end(self, input_ids: Tensor) -> Tensor:
        """Return where each text ends; int64, (batch_size,).

        Padding may be the end token too, so that transformers' ArgMax has ties, which not every runtime resolves alike
        (OpenVINO before 2025.3). This is the first place in all of them.
        """
        end: Tensor | int = input_ids.amax(1, keepdim=True) if self.eos_token_id is None else self.eos_token_id
        length = input_ids.shape[1]
        places = torch.arange(length, device=input_ids.device)
        first = torch.where(input_ids == end, places, length).amin(1)
        return torch.where(first < length, first, 0)  # without an end token, as ArgMax does


class ChineseTextEncoder(nn.Module):
    """Embed texts with Chinese-CLIP: the hidden state of the first token, projected.

    Args:
        model: The transformers model; its weights are shared, not copied.
    """

    def __init__(self, model: ChineseCLIPModel) -> None:
        super().__init__()
        self.text_model = model.text_model
        self.text_projection = model.text_projection

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed texts, as TextEncoder does."""
        bias = attention_bias(attention_mask, self.text_projection.weight.dtype)
        hidden = self.text_model(input_ids=input_ids, attention_mask=bias).last_hidden_state
        return functional.normalize(self.text_projection(hidden[:, 0]).float(), dim=-1)


def load(source: CheckpointSource, limits: Limits) -> Checkpoint:
    """Load a CLIP or Chinese-CLIP checkpoint.

    Raises:
        CheckpointError: A file is missing or damaged, or does not fit the others.
    """
    model: Any
    text_encoder: nn.Module
    if source.config["model_type"] == _CHINESE:
        model = source.load_model(ChineseCLIPModel)
        text_encoder = ChineseTextEncoder(model)
        processor = load_processor(source, ChineseCLIPImageProcessorPil)
    else:
        model = source.load_model(CLIPModel)
        text_encoder = TextEncoder(model)
        processor = load_processor(source, CLIPImageProcessorPil)
    tokenizer = source.load_tokenizer()
    text, size = model.config.text_config, model.config.vision_config.image_size
    tokenizer_json = plain_tokenizer(source, tokenizer, text.vocab_size).to_str()
    scale = float(model.logit_scale.detach().exp()) if source.weights else 1.0
    parts = DualEncoder(
        text_encoder=text_encoder,
        vision_encoder=PooledVisionEncoder(model.vision_model, Normalization.of(processor), model.visual_projection),
        heads=make_heads(scale, -scale * IMAGE_CENTRE),
        embedding_dim=model.config.projection_dim,
        text=TextFormat(
            vocab_size=text.vocab_size,
            pad_token_id=tokenizer.pad_token_id,
            buckets=text_buckets(source, limits, text.max_position_embeddings, tokenizer.model_max_length),
        ),
        image=read_format(source, processor, size, size),
    )

    def load_reference() -> ReferenceEncoders:
        @torch.no_grad()
        def embed_texts(texts: Sequence[str]) -> Tensor:
            options = {"padding": True, "truncation": True, "max_length": parts.text.max_tokens}
            inputs = tokenizer(list(texts), return_tensors="pt", **options)
            features = model.get_text_features(inputs["input_ids"], inputs["attention_mask"]).pooler_output
            return functional.normalize(cast(Tensor, features), dim=-1)

        @torch.no_grad()
        def embed_image(image: Image.Image) -> Tensor:
            features = model.get_image_features(**processor(image, return_tensors="pt")).pooler_output
            return functional.normalize(cast(Tensor, features), dim=-1)

        images = sample_images()
        pixels = np.stack([prepare_image(processor, image) for image in images])
        embeddings = torch.cat([embed_image(image) for image in images])
        return ReferenceEncoders(embed_texts, embed_image, pixels, embeddings, [encode(image) for image in images])

    return build_checkpoint(source, "clip", limits, parts, tokenizer_json, load_reference)


FAMILY = Family(
    name="clip",
    model_types=("clip", _CHINESE),
    load=load,
    checkpoints=("openai/clip-vit-base-patch32", "OFA-Sys/chinese-clip-vit-base-patch16"),
)
