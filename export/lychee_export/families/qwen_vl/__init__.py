"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL rerankers: lychee-rerank-mm, Qwen3-VL-Reranker, MonoQwen2-VL, jina-reranker-m0.

Cross-encoders: one row is one pair with all its images. The three generations share one exporter; the published
models differ in prompt and head, which ``families/prompts/`` describes in one file each.
"""

from __future__ import annotations

import sys
from typing import Any

from lychee_client.manifest import CheckpointLimits, InstructionSpec, ModelSpec, TextSpec
from torch import nn
from transformers import (
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLForConditionalGeneration,
    Qwen2VLProcessor,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
)

from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.contract.limits import Limits
from lychee_export.families.family import Checkpoint, Family, ModelCard, Piece, Reference
from lychee_export.families.heads import LabelHead, find_label_ids, make_score_head
from lychee_export.families.pair_contract import PairContract
from lychee_export.families.qwen_vl.checks import check_config
from lychee_export.families.qwen_vl.classes import CLASSIFIERS, JinaVLForRanking
from lychee_export.families.qwen_vl.images import ImageSettings, read_image_settings
from lychee_export.families.qwen_vl.inputs import PatchInputs
from lychee_export.families.qwen_vl.reference import ReferenceModel, make_reference
from lychee_export.families.qwen_vl.rows import make_processor
from lychee_export.families.qwen_vl.text import TextEncoder
from lychee_export.families.qwen_vl.vision import VisionEncoder
from lychee_export.families.template import Template, find_template, templates

__all__ = ["FAMILY", "load"]

_CLASSES = {
    "JinaVLForRanking": (JinaVLForRanking, Qwen2VLProcessor),
    "Qwen2VLForConditionalGeneration": (Qwen2VLForConditionalGeneration, Qwen2VLProcessor),
    "Qwen2_5_VLForConditionalGeneration": (Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor),
    "Qwen3VLForConditionalGeneration": (Qwen3VLForConditionalGeneration, Qwen3VLProcessor),
    "Qwen2VLForSequenceClassification": (CLASSIFIERS["Qwen2VLForSequenceClassification"], Qwen2VLProcessor),
    "Qwen2_5_VLForSequenceClassification": (CLASSIFIERS["Qwen2_5_VLForSequenceClassification"], Qwen2_5_VLProcessor),
    "Qwen3VLForSequenceClassification": (CLASSIFIERS["Qwen3VLForSequenceClassification"], Qwen3VLProcessor),
}
"""Model and processor by ``architectures[0]`` in config.json."""

_UNSTATED_MAX_TOKENS = 4096
"""By default, where nobody says with how many tokens a model was trained: two pages and a text."""


def load(source: CheckpointSource, limits: Limits) -> Checkpoint:
    """Load a Qwen-VL reranker.

    Args:
        source: The checkpoint.
        limits: What the deployment admits.

    Raises:
        CheckpointError: The checkpoint is damaged, or none of the known rerankers, or the limits leave no room.
    """
    template = find_template(source)
    model_class, processor_class = _CLASSES[source.config["architectures"][0]]
    tokenizer = source.load_tokenizer()
    scored = template.labels is None or model_class in CLASSIFIERS.values()
    label_ids = None if scored or template.labels is None else find_label_ids(tokenizer, template.labels)
    model: Any = source.load_model(model_class)
    check_config(model.config, tokenizer, template.prompt.image_token)
    images = read_image_settings(source, model.config.vision_config, limits, template)
    own_tokens = min(template.max_tokens or sys.maxsize, model.config.text_config.max_position_embeddings)
    max_tokens = min(own_tokens, limits.max_tokens or template.max_tokens or _UNSTATED_MAX_TOKENS)
    inputs = _describe_inputs(model.config, images, limits, tokenizer, max_tokens)
    contract = PairContract(inputs, model.config.text_config.hidden_size)
    ensembles = (*([contract.rerank_text] if template.reads("text", "text") else []), contract.rerank_image)
    head: nn.Module
    if label_ids is None:
        head = make_score_head(model.score, template.logit_bias, model.config)
    else:
        head = LabelHead(model.lm_head.weight, *label_ids)
    pieces = (
        Piece(
            inputs.vision_encoder,
            VisionEncoder(model, images.image_mean, images.image_std).eval(),
            inputs.sample_images,
        ),
        Piece(contract.text_encoder, TextEncoder(model).eval(), inputs.sample_texts),
        Piece(contract.scoring_head, head.eval(), contract.sample_hidden),
    )

    def reference() -> Reference:
        def make(settings: ImageSettings) -> ReferenceModel:
            return ReferenceModel(model, make_processor(processor_class, settings, tokenizer), template, label_ids)

        own = None if images.max_pixels == images.own_max_pixels else make(images.unreduced())
        return make_reference(make(images), own, template, inputs, [each.name for each in ensembles])

    spec = _describe(source, template, inputs, CheckpointLimits(own_tokens, images.own_max_pixels))
    card = ModelCard(spec, ensembles, tokenizer.backend_tokenizer.to_str())
    return Checkpoint(card, pieces, reference)


def _describe_inputs(
    config: Any, images: ImageSettings, limits: Limits, tokenizer: Any, max_tokens: int
) -> PatchInputs:
    text = config.text_config
    deepstack = len(getattr(config.vision_config, "deepstack_visual_indexes", None) or ())
    return PatchInputs(
        max_tokens=max_tokens,
        images=images,
        limits=limits,
        embedding_dim=text.hidden_size * (1 + deepstack),
        image_token_id=config.image_token_id,
        pad_token_id=tokenizer.pad_token_id,
        vocab_size=text.vocab_size,
    )


def _describe(source: CheckpointSource, template: Template, inputs: PatchInputs, own: CheckpointLimits) -> ModelSpec:
    """Return what the client needs to know."""
    images = inputs.images
    return ModelSpec(
        family=FAMILY.name,
        pipeline="cross_encoder",
        model_id=source.model_id,
        revision=source.revision,
        text=TextSpec(
            pad_token_id=inputs.pad_token_id,
            max_tokens=inputs.max_tokens,
            buckets=inputs.tokens.buckets,
        ),
        prompt=template.prompt,
        image=inputs.image_spec,
        max_img_size=images.max_img_size,
        instruction=None if template.instruction is None else InstructionSpec(template.instruction),
        checkpoint_limits=own,
    )


FAMILY = Family(
    name="qwen_vl",
    model_types=("qwen2_vl", "qwen2_5_vl", "qwen3_vl"),
    load=load,
    checkpoints=tuple(
        name for template in templates().values() if template.reads_images for name in template.checkpoints
    ),
    has_templates=True,
)
