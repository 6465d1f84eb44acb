"""The transformers side of a comparison: models, tokenizers and processors of the checkpoint's own classes.

Nothing here comes from the exporter or the client.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import Unigram
from torch import Tensor
from transformers import (
    AutoTokenizer,
    BlipForImageTextRetrieval,
    ChineseCLIPModel,
    CLIPModel,
    PreTrainedModel,
    Siglip2Model,
    SiglipModel,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.chinese_clip.image_processing_pil_chinese_clip import ChineseCLIPImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

from checkpoints.siglip import unigram_pieces

_CLASSES: dict[str, tuple[type[PreTrainedModel], Any]] = {
    "blip": (BlipForImageTextRetrieval, BlipImageProcessorPil),
    "chinese_clip": (ChineseCLIPModel, ChineseCLIPImageProcessorPil),
    "clip": (CLIPModel, CLIPImageProcessorPil),
    "siglip": (SiglipModel, SiglipImageProcessorPil),
    "siglip2": (Siglip2Model, Siglip2ImageProcessorPil),
}
SIGLIP_TOKENS = 64


@dataclass(frozen=True)
class Embeddings:
    """What a dual encoder of transformers computes for texts and images.

    Attributes:
        texts: float32, (num_texts, embedding_dim), rows of unit length.
        images: The same for images.
        logits_per_image: float32, (num_images, num_texts).
    """

    texts: Tensor
    images: Tensor
    logits_per_image: Tensor


@dataclass(frozen=True)
class TransformersModel:
    """A checkpoint as users of transformers run it.

    Args:
        model: In float32.
        processor: The image processor that computes with Pillow.
        tokenize: Texts to ``input_ids`` and, where the model is given one, ``attention_mask``.
    """

    model: Any
    processor: Any
    tokenize: Callable[[Sequence[str]], dict[str, Tensor]]

    @torch.no_grad()
    def embed(self, texts: Sequence[str], images: Sequence[Image.Image]) -> Embeddings:
        """Run a dual encoder."""
        outputs = self.model(**self.tokenize(texts), **self.processor(list(images), return_tensors="pt"))
        return Embeddings(outputs.text_embeds, outputs.image_embeds, outputs.logits_per_image)

    @torch.no_grad()
    def match(self, texts: Sequence[str], images: Sequence[Image.Image]) -> Tensor:
        """Run BLIP on pairs: float32, (num_pairs,), the probability of a match."""
        pixels = self.processor(list(images), return_tensors="pt")
        return self.model(**self.tokenize(texts), **pixels).itm_score.softmax(-1)[:, 1]  # type: ignore[no-any-return]


def load_transformers(folder: Path) -> TransformersModel:
    """Load a checkpoint folder."""
    model_type = json.loads((folder / "config.json").read_text())["model_type"]
    model_class, processor_class = _CLASSES[model_type]
    model = model_class.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    processor = processor_class.from_pretrained(folder)
    if (folder / "spiece.model").is_file():
        return TransformersModel(model, processor, tokenize_siglip)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    limit = min(model.config.text_config.max_position_embeddings, tokenizer.model_max_length)

    def tokenize(texts: Sequence[str]) -> dict[str, Tensor]:
        if model_type.startswith("siglip"):
            lowered = [text.lower() for text in texts]
            options = {"padding": "max_length", "max_length": SIGLIP_TOKENS, "truncation": True}
            return {"input_ids": tokenizer(lowered, return_tensors="pt", **options)["input_ids"]}
        inputs = tokenizer(list(texts), return_tensors="pt", padding=True, max_length=limit, truncation=True)
        return {name: inputs[name] for name in ("input_ids", "attention_mask")}

    return TransformersModel(model, processor, tokenize)


def canonicalize(text: str) -> str:
    """Prepare a text as SiglipTokenizer does, whose module needs the sentencepiece package.

    Source: transformers 5.23.0, models/siglip/tokenization_siglip.py, SiglipTokenizer.canonicalize_text.
    """
    without = text.lower().translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\s+", " ", without).strip()


def tokenize_siglip(texts: Sequence[str]) -> dict[str, Tensor]:
    """Tokenize with a bare Unigram model, after preparation in Python; pad with the end token."""
    tokenizer = Tokenizer(Unigram(unigram_pieces(), unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    rows = []
    for text in texts:
        ids = tokenizer.encode(canonicalize(text)).ids[: SIGLIP_TOKENS - 1]
        rows.append(ids + [1] * (SIGLIP_TOKENS - len(ids)))
    return {"input_ids": torch.tensor(rows)}
