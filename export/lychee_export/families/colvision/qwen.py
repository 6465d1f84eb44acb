"""ColQwen2 and ColQwen2.5: Qwen2-VL or Qwen2.5-VL, whose image tokens have rows and columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from lychee_client.manifest import CheckpointLimits
from PIL import Image
from torch import Tensor, nn
from transformers import ColQwen2ForRetrieval, Qwen2_5_VLProcessor, Qwen2VLProcessor

from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.contract.limits import Limits
from lychee_export.contract.signature import Tensors
from lychee_export.errors import CheckpointError
from lychee_export.families.colvision.build import Modules, build_checkpoint
from lychee_export.families.colvision.classes import ColQwen2, ColQwen2_5, Loaded, unwrap
from lychee_export.families.colvision.prompts import AUGMENTATION, Prompts
from lychee_export.families.colvision.reference import Document, PageReference
from lychee_export.families.colvision.vectors import make_vectors
from lychee_export.families.family import Checkpoint
from lychee_export.families.qwen_vl.checks import check_config
from lychee_export.families.qwen_vl.images import read_image_settings
from lychee_export.families.qwen_vl.inputs import PatchInputs
from lychee_export.families.qwen_vl.rows import cut_patches, make_processor, pad_images, pad_texts, without_images
from lychee_export.families.qwen_vl.text import TextEncoder
from lychee_export.families.qwen_vl.vision import VisionEncoder
from lychee_export.families.text_format import plain_tokenizer

__all__ = ["TokenEncoder", "load"]

_PROCESSORS = {"qwen2_vl": Qwen2VLProcessor, "qwen2_5_vl": Qwen2_5_VLProcessor}
_IMAGE_TOKEN = "<|image_pad|>"
_PAGE = f"<|im_start|>user\n<|vision_start|>{_IMAGE_TOKEN}<|vision_end|>Describe the image.<|im_end|><|endoftext|>"
_QUERY_PREFIX = "Query: "
"""In transformers' processor, and in colpali-engine 0.3.4 to 0.3.12; 0.3.13 put nothing in its place."""
_LEAST_MAX_TOKENS = 1024
"""By default, where pages are smaller."""


class TokenEncoder(TextEncoder):
    """Read a text, or a page's prompt with its image, and make a vector of unit length of every token.

    Args:
        model: What ``TextEncoder`` takes.
        projection: The linear layer that makes vectors of states; its weights are shared, not copied.
    """

    def __init__(self, model: Any, projection: nn.Linear) -> None:
        super().__init__(model)
        self.projection = projection

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, image_embeds: Tensor, image_grid_thw: Tensor
    ) -> Tensor:
        """Encode texts and pages.

        Args:
            input_ids: See ``TextEncoder.read``, as the others; padded right.
            attention_mask: int64, (batch_size, sequence_length).
            image_embeds: float32, (batch_size, num_image_tokens, embedding_dim).
            image_grid_thw: int64, (batch_size, max_images, 3).

        Returns:
            float16, (batch_size, 1, sequence_length, dim); see ``make_vectors``.
        """
        states = self.norm(self.read(input_ids, attention_mask, image_embeds, image_grid_thw))
        return make_vectors(self.projection, states, attention_mask)


class _Reference(PageReference):
    """The backbone gets the shape of the image, so that its tokens have rows and columns.

    So colpali-engine has it, and transformers up to 4.53; ``ColQwen2ForRetrieval`` of transformers 5 does not pass the
    shape on.
    """

    def __init__(self, model: Loaded, processor: Any, prompts: Prompts, inputs: PatchInputs) -> None:
        super().__init__(model.backbone, model.projection, prompts)
        self._processor = processor
        self._inputs = inputs

    def read(self, text: str, image: Image.Image | None = None) -> Mapping[str, Tensor]:
        """See PageReference."""
        inputs: Mapping[str, Tensor] = self._processor(
            text=[text], images=None if image is None else [image], return_tensors="pt"
        )
        return inputs

    def pad(self, documents: Sequence[Document], *, padded: bool = True) -> Tensors:
        """See PageReference."""
        ids = [self.read_document(document)["input_ids"][0].numpy() for document in documents]
        rows = pad_texts(ids, self._inputs, padded=padded)
        images = [document for document in documents if not isinstance(document, str)]
        if not images:
            return rows | without_images(len(documents), self._inputs)
        patches = [[cut_patches(self._processor.image_processor, image)] for image in images]
        return rows | pad_images(patches, self._inputs, padded=padded)


def load(source: CheckpointSource, limits: Limits) -> Checkpoint:
    """Load a ColQwen2 or ColQwen2.5.

    Raises:
        CheckpointError: The checkpoint is damaged, or of another kind, or the limits leave no room.
    """
    model = _load_model(source)
    tokenizer = source.load_tokenizer(model.config)
    check_config(model.config, tokenizer, _IMAGE_TOKEN)
    text_config = model.config.text_config
    plain = plain_tokenizer(source, tokenizer, text_config.vocab_size)
    prompts = _find_prompts(source, tokenizer)
    images = read_image_settings(source, model.config.vision_config, replace(limits, max_images=1))
    page_tokens = images.max_blocks + len(tokenizer(prompts.page)["input_ids"]) - 1
    own_tokens = int(text_config.max_position_embeddings)
    inputs = PatchInputs(
        max_tokens=min(own_tokens, limits.max_tokens or max(_LEAST_MAX_TOKENS, page_tokens)),
        images=images,
        limits=limits,
        embedding_dim=text_config.hidden_size,
        image_token_id=model.config.image_token_id,
        pad_token_id=tokenizer.pad_token_id,
        vocab_size=text_config.vocab_size,
    )
    parts = SimpleNamespace(model=model.backbone, config=model.config)

    def make_reference() -> PageReference:
        processor = make_processor(_PROCESSORS[model.config.model_type], images, tokenizer)
        return _Reference(model, processor, prompts, inputs)

    modules = Modules(
        VisionEncoder(parts, images.image_mean, images.image_std),
        TokenEncoder(parts, model.projection),
        model.projection.out_features,
        make_reference,
    )
    own = CheckpointLimits(own_tokens, images.own_max_pixels)
    return build_checkpoint(source, modules, inputs, prompts, plain.to_str(), own, images.max_img_size)


def _load_model(source: CheckpointSource) -> Loaded:
    """Load the weights in the class that config.json names.

    Raises:
        CheckpointError: They are another one's, or have another backbone.
    """
    kind = source.config["model_type"]
    if kind != "colqwen2":
        return unwrap(source.load_model(ColQwen2 if kind == "qwen2_vl" else ColQwen2_5))
    backbone = (source.config.get("vlm_config") or {}).get("model_type")
    if backbone not in _PROCESSORS:
        raise CheckpointError(
            f"{source.folder / 'config.json'}: vlm_config has the model_type {backbone!r}, expected one of "
            f"{list(_PROCESSORS)}; others are not supported"
        )
    return unwrap(source.load_model(ColQwen2ForRetrieval))


def _find_prompts(source: CheckpointSource, tokenizer: Any) -> Prompts:
    """Return the prompts of transformers' processor, or of colpali-engine's, by the layout of the checkpoint."""
    fill = tokenizer.pad_token * AUGMENTATION
    if source.config["model_type"] != "colqwen2":
        return Prompts(_QUERY_PREFIX, fill, "", _PAGE, _IMAGE_TOKEN)
    told = source.read_json("processor_config.json") | source.read_json("preprocessor_config.json")
    prefix, page = told.get("query_prefix") or _QUERY_PREFIX, told.get("visual_prompt_prefix") or _PAGE
    return Prompts(prefix, f"{fill}\n", "", page, _IMAGE_TOKEN)
