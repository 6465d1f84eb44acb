"""ColQwen2 and ColQwen2.5: Qwen-VL reads a page as an image, and a query as a text."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from lychee_client.manifest import CheckpointLimits, ModelSpec, PageInteractionSpec, TextSpec
from torch import nn
from transformers import ColQwen2ForRetrieval, Qwen2_5_VLProcessor, Qwen2VLProcessor

from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.contract.limits import Limits
from lychee_export.errors import CheckpointError
from lychee_export.families.colvision.classes import ColQwen2, ColQwen2_5
from lychee_export.families.colvision.contract import PageContract, token_embeddings
from lychee_export.families.colvision.encoder import TokenEncoder
from lychee_export.families.colvision.prompts import Prompts
from lychee_export.families.colvision.reference import PageReference, make_reference
from lychee_export.families.family import Checkpoint, ModelCard, Piece, Reference
from lychee_export.families.maxsim import MaxSim
from lychee_export.families.qwen_vl.checks import check_config
from lychee_export.families.qwen_vl.contract import Inputs
from lychee_export.families.qwen_vl.images import read_image_settings
from lychee_export.families.qwen_vl.rows import make_processor
from lychee_export.families.qwen_vl.vision import VisionEncoder
from lychee_export.families.text_format import plain_tokenizer

__all__ = ["ARCHITECTURES", "MODEL_TYPES", "load"]

MODEL_TYPES = ("colqwen2", "qwen2_vl", "qwen2_5_vl")
ARCHITECTURES = ("ColQwen2ForRetrieval", "ColQwen2", "ColQwen2_5")
_BACKBONES = ("qwen2_vl", "qwen2_5_vl")
_PROCESSORS = dict(zip(_BACKBONES, (Qwen2VLProcessor, Qwen2_5_VLProcessor), strict=True))
_IMAGE_TOKEN = "<|image_pad|>"
_PAGE = f"<|im_start|>user\n<|vision_start|>{_IMAGE_TOKEN}<|vision_end|>Describe the image.<|im_end|><|endoftext|>"
_QUERY_PREFIX = "Query: "
"""In transformers' processor, and in colpali-engine 0.3.4 to 0.3.12, with which the published checkpoints were trained.
0.3.13 put nothing in its place."""
_AUGMENTATION = 10
"""So many padding tokens follow a query; the model learned to put what it makes of the query there."""
_LEAST_MAX_TOKENS = 1024
"""By default, where pages are smaller."""
_MAX_QUERY_TOKENS = 512
_MAX_DOCUMENTS = 64


@dataclass(frozen=True)
class _Model:
    """What a checkpoint holds, by one name in both layouts.

    Args:
        backbone: The ``Qwen2VLModel`` or ``Qwen2_5_VLModel``.
        config: Its configuration.
        projection: The linear layer that makes vectors of its states.
    """

    backbone: Any
    config: Any
    projection: nn.Linear


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
    max_tokens = min(own_tokens, limits.max_tokens or max(_LEAST_MAX_TOKENS, page_tokens))
    inputs = Inputs(
        max_tokens=max_tokens,
        images=images,
        limits=limits,
        embedding_dim=text_config.hidden_size,
        image_token_id=model.config.image_token_id,
        pad_token_id=tokenizer.pad_token_id,
        vocab_size=text_config.vocab_size,
    )
    dim = model.projection.out_features
    late = PageInteractionSpec(
        query_tokens=min(_MAX_QUERY_TOKENS, max_tokens),
        query_suffix=prompts.query_suffix,
        page=prompts.page,
        image_token=prompts.image_token,
        max_documents=_MAX_DOCUMENTS,
    )
    contract = PageContract(
        dim=dim,
        tokens=inputs.tokens,
        texts=inputs.texts,
        vision_encoder=inputs.vision_encoder,
        text_encoder=inputs.sign_text_encoder(token_embeddings(inputs.tokens, dim)),
        late=late,
        limits=limits,
    )
    parts = SimpleNamespace(model=model.backbone, config=model.config)
    pieces = (
        Piece(
            contract.vision_encoder,
            VisionEncoder(parts, images.image_mean, images.image_std).eval(),
            inputs.sample_images,
        ),
        Piece(contract.text_encoder, TokenEncoder(parts, model.projection).eval(), inputs.sample_texts),
        Piece(contract.scoring_head, MaxSim().eval(), contract.sample_vectors),
    )
    spec = ModelSpec(
        family="colvision",
        pipeline="late_interaction",
        model_id=source.model_id,
        revision=source.revision,
        embedding_dim=dim,
        text=TextSpec(
            query_prefix=prompts.query_prefix,
            document_prefix="",
            pad_token_id=inputs.pad_token_id,
            max_tokens=max_tokens,
            buckets=inputs.tokens.buckets,
        ),
        late_interaction=late,
        image=inputs.image_spec,
        max_img_size=images.max_img_size,
        checkpoint_limits=CheckpointLimits(own_tokens, images.own_max_pixels),
    )

    def reference() -> Reference:
        processor = make_processor(_PROCESSORS[model.config.model_type], images, tokenizer)
        return make_reference(PageReference(model.backbone, model.projection, processor, prompts), inputs, contract)

    card = ModelCard(
        spec,
        (contract.rerank_text, contract.rerank_image),
        plain.to_str(),
        encoders=(contract.image_encoder,),
        sigmoid=False,
    )
    return Checkpoint(card, pieces, reference)


def _load_model(source: CheckpointSource) -> _Model:
    """Load the weights in the class that config.json names.

    Raises:
        CheckpointError: It is another one, or another language model lies in it.
    """
    config, place = source.config, source.folder / "config.json"
    loaded: Any
    if config["model_type"] == "colqwen2":
        kind = (config.get("vlm_config") or {}).get("model_type")
        if kind not in _BACKBONES:
            raise CheckpointError(
                f"{place}: vlm_config has the model_type {kind!r}, expected one of {list(_BACKBONES)}; others are not "
                "supported"
            )
        loaded = source.load_model(ColQwen2ForRetrieval)
        return _Model(loaded.vlm, loaded.config.vlm_config, loaded.embedding_proj_layer)
    loaded = source.load_model(ColQwen2 if config["model_type"] == "qwen2_vl" else ColQwen2_5)
    return _Model(loaded, loaded.config, loaded.custom_text_proj)


def _find_prompts(source: CheckpointSource, tokenizer: Any) -> Prompts:
    """Return the prompts of transformers' processor, or of colpali-engine's, by the layout of the checkpoint."""
    fill = tokenizer.pad_token * _AUGMENTATION
    if source.config["model_type"] != "colqwen2":
        return Prompts(_QUERY_PREFIX, fill, _PAGE, _IMAGE_TOKEN)
    processor = source.read_json("processor_config.json") | source.read_json("preprocessor_config.json")
    return Prompts(
        processor.get("query_prefix") or _QUERY_PREFIX,
        f"{fill}\n",
        processor.get("visual_prompt_prefix") or _PAGE,
        _IMAGE_TOKEN,
    )
