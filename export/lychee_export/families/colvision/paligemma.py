"""ColPali: PaliGemma, whose Gemma reads an image of one size and its text in both directions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lychee_client.manifest import CheckpointLimits, TileSpec
from PIL import Image
from torch import Tensor, nn
from transformers import ColPaliForRetrieval

from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.contract.limits import Limits
from lychee_export.contract.signature import Tensors
from lychee_export.errors import CheckpointError
from lychee_export.families.colvision.build import Modules, build_checkpoint
from lychee_export.families.colvision.classes import ColPali, Loaded, unwrap
from lychee_export.families.colvision.prompts import AUGMENTATION, Prompts
from lychee_export.families.colvision.reference import Document, PageReference
from lychee_export.families.colvision.vectors import make_vectors
from lychee_export.families.decoder import Decoder, put_images
from lychee_export.families.family import Checkpoint
from lychee_export.families.text_format import TextFormat, plain_tokenizer, text_buckets
from lychee_export.families.tiles import TileInputs, TileVisionEncoder

__all__ = ["TokenEncoder", "load"]

_IMAGE_TOKEN = "<image>"
_PAGE = "Describe the image."
_QUERY_PREFIX = "Question: "
"""In transformers' processor, and in colpali-engine up to 0.3.3; 0.3.4 to 0.3.10 had "Query: ", later ones nothing."""
_MAX_TOKENS = 1536
"""By default: more than a page, which takes 1,030, and the next common length."""
_MEAN, _STD = 0.5, 0.5
"""SigLIP's, of all channels."""
_EXPECTED_PROCESSOR = {"resample": 3, "image_mean": [_MEAN] * 3, "image_std": [_STD] * 3, "rescale_factor": 1 / 255}


class TokenEncoder(nn.Module):
    """Read a text, or a page's prompt with its image, and make a vector of unit length of every token.

    Args:
        model: The ``GemmaModel``; its weights are shared, not copied.
        projection: The linear layer that makes vectors of its states; shared too.
        image_token_id: The token that stands for a part of an image.
    """

    def __init__(self, model: Any, projection: nn.Linear, image_token_id: int) -> None:
        super().__init__()
        self.decoder, self.projection = Decoder(model, causal=False), projection
        self.image_token_id = image_token_id

    def forward(self, input_ids: Tensor, attention_mask: Tensor, image_embeds: Tensor) -> Tensor:
        """Encode texts and pages.

        Args:
            input_ids: int64, (batch_size, sequence_length), padded right.
            attention_mask: int64, (batch_size, sequence_length), 1 for a token, 0 for padding.
            image_embeds: float32, (batch_size, num_image_tokens, hidden_size).

        Returns:
            float16, (batch_size, 1, sequence_length, dim); see ``make_vectors``.
        """
        is_image = (input_ids == self.image_token_id) & (attention_mask > 0)
        x = put_images(self.decoder.embed_tokens(input_ids), is_image, image_embeds)
        return make_vectors(self.projection, self.decoder(x, attention_mask), attention_mask)


class _Reference(PageReference):
    """The backbone reads in both directions, as it does where all tokens belong to the prompt."""

    def __init__(self, model: Loaded, tokenizer: Any, prompts: Prompts, inputs: TileInputs) -> None:
        super().__init__(model.backbone, model.projection, prompts)
        self._tokenizer = tokenizer
        self._inputs = inputs

    def read(self, text: str, image: Image.Image | None = None) -> Mapping[str, Tensor]:
        """See PageReference."""
        count = self._inputs.image.tile_tokens
        ids = torch.tensor([self._tokenizer.encode(text.replace(_IMAGE_TOKEN, _IMAGE_TOKEN * count)).ids])
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
        if image is not None:
            inputs["pixel_values"] = _make_pixel_table()[torch.from_numpy(self._stretch(image)).long()]
        return inputs

    def pad(self, documents: Sequence[Document], *, padded: bool = True) -> Tensors:
        """See PageReference."""
        prompts = [self.read_document(document)["input_ids"][0].tolist() for document in documents]
        rows = self._inputs.pad_texts(prompts, padded=padded)
        images = [self._stretch(document) for document in documents if not isinstance(document, str)]
        return rows | ({"pixel_values": np.stack(images)} if images else self._inputs.without_images(len(documents)))

    def _stretch(self, image: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Return an image as the one tile that it is read as, uint8, (1, 3, edge, edge)."""
        edge = self._inputs.image.tile_size
        resized = image.convert("RGB").resize((edge, edge), Image.Resampling.BICUBIC)
        return np.array(resized).transpose(2, 0, 1)[None]


def load(source: CheckpointSource, limits: Limits) -> Checkpoint:
    """Load a ColPali.

    Raises:
        CheckpointError: The checkpoint is damaged, or of another kind, or the limits leave no room.
    """
    model = _load_model(source)
    text_config, vision = model.config.text_config, model.config.vision_config
    _check_processor(source, int(vision.image_size))
    tokenizer = source.load_tokenizer(model.config)
    tokenizer.add_bos_token = tokenizer.add_eos_token = False  # the prompts have the first token themselves
    plain = plain_tokenizer(source, tokenizer, text_config.vocab_size)
    image_token_id = _find_image_token(source, model.config, tokenizer)
    tile_tokens = (int(vision.image_size) // int(vision.patch_size)) ** 2
    image = TileSpec(int(vision.image_size), 1, tile_tokens, "bicubic", text_config.hidden_size)
    prompts = _find_prompts(source, tokenizer)
    page_tokens = tile_tokens + len(plain.encode(prompts.page).ids) - 1
    own_tokens = min(int(text_config.max_position_embeddings), tokenizer.model_max_length)
    most = min(own_tokens, limits.max_tokens or _MAX_TOKENS)
    if most < page_tokens:
        raise CheckpointError(
            f"{source.folder}: a page takes {page_tokens} tokens and a document may have {most}; choose a --max-tokens "
            f"of {page_tokens} or more"
        )
    buckets = tuple(sorted({*text_buckets(source, limits, most), page_tokens}))
    inputs = TileInputs(
        TextFormat(vocab_size=text_config.vocab_size, pad_token_id=tokenizer.pad_token_id, buckets=buckets),
        image,
        limits,
        image_token_id,
    )
    modules = Modules(
        TileVisionEncoder(model.backbone.vision_tower, model.backbone.multi_modal_projector, _make_pixel_table()),
        TokenEncoder(model.backbone.language_model, model.projection, image_token_id),
        model.projection.out_features,
        lambda: _Reference(model, plain, prompts, inputs),
    )
    side = math.isqrt(image.max_pixels)
    own = CheckpointLimits(own_tokens, image.max_pixels)
    return build_checkpoint(source, modules, inputs, prompts, plain.to_str(), own, side)


def _load_model(source: CheckpointSource) -> Loaded:
    """Load the weights in the class that config.json names.

    Raises:
        CheckpointError: They are another one's, or have other parts.
    """
    is_native = source.config["model_type"] == "colpali"
    described = (source.config.get("vlm_config") or {}) if is_native else source.config
    parts = {name: (described.get(name) or {}).get("model_type") for name in ("text_config", "vision_config")}
    if parts != {"text_config": "gemma", "vision_config": "siglip_vision_model"}:
        raise CheckpointError(
            f"{source.folder / 'config.json'}: text_config has the model_type {parts['text_config']!r} and "
            f"vision_config {parts['vision_config']!r}, expected 'gemma' and 'siglip_vision_model': PaliGemma. Others "
            "are not supported"
        )
    return unwrap(source.load_model(ColPaliForRetrieval if is_native else ColPali))


def _find_image_token(source: CheckpointSource, config: Any, tokenizer: Any) -> int:
    """Return the id of the token that stands for a part of an image.

    Raises:
        CheckpointError: The tokenizer has another one than config.json says, or has none.
    """
    token_id = tokenizer.get_vocab().get(_IMAGE_TOKEN)
    if token_id is None or token_id != config.image_token_index:
        raise CheckpointError(
            f"the tokenizer in {source.folder} gives {_IMAGE_TOKEN} the id {token_id}, config.json says "
            f"image_token_index {config.image_token_index}; take both files from one checkpoint"
        )
    return int(token_id)


def _check_processor(source: CheckpointSource, edge: int) -> None:
    """Refuse another way of preparing images than stretching them, as SigLIP's processor does.

    Raises:
        CheckpointError: preprocessor_config.json asks for one.
    """
    told = source.read_json("preprocessor_config.json")
    expected = _EXPECTED_PROCESSOR | {"size": {"height": edge, "width": edge}}
    for name, value in expected.items():
        if told.get(name) not in (None, value):
            raise CheckpointError(
                f"{source.folder / 'preprocessor_config.json'}: {name} is {told[name]!r}, expected {value!r}; other "
                "ways of preparing images are not supported"
            )


def _find_prompts(source: CheckpointSource, tokenizer: Any) -> Prompts:
    """Return what transformers' processor puts around queries, texts and pages; colpali-engine's does the same."""
    told = source.read_json("processor_config.json") | source.read_json("preprocessor_config.json")
    first = str(tokenizer.bos_token)
    return Prompts(
        query_prefix=first + (told.get("query_prefix") or _QUERY_PREFIX),
        query_suffix=f"{tokenizer.pad_token * AUGMENTATION}\n",
        document_prefix=first,
        page=f"{_IMAGE_TOKEN}{first}{told.get('visual_prompt_prefix') or _PAGE}\n",
        image_token=_IMAGE_TOKEN,
    )


def _make_pixel_table() -> Tensor:
    """Return what each byte is to the model, float32, (256,)."""
    return (torch.arange(256, device="cpu").float() / 255 - _MEAN) / _STD
