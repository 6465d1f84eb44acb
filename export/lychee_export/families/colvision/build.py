"""Putting a loaded model together: its pieces, and what the client is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lychee_client.manifest import CheckpointLimits, ModelSpec, PageInteractionSpec, TextSpec
from torch import nn

from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.families.colvision.contract import PageContract
from lychee_export.families.colvision.prompts import Prompts
from lychee_export.families.colvision.reference import PageReference, make_reference
from lychee_export.families.family import Checkpoint, ModelCard, Piece
from lychee_export.families.image_inputs import ImageInputs
from lychee_export.families.maxsim import MaxSim

__all__ = ["Modules", "build_checkpoint"]

_MAX_QUERY_TOKENS = 512
_MAX_DOCUMENTS = 64


@dataclass(frozen=True)
class Modules:
    """What a family makes of a checkpoint.

    Args:
        vision_encoder: Embeds images.
        text_encoder: Makes vectors of texts and pages.
        dim: The length of a vector.
        make_reference: Makes the reference implementation.
    """

    vision_encoder: nn.Module
    text_encoder: nn.Module
    dim: int
    make_reference: Callable[[], PageReference]


def build_checkpoint(
    source: CheckpointSource,
    modules: Modules,
    inputs: ImageInputs,
    prompts: Prompts,
    tokenizer_json: str,
    own: CheckpointLimits,
    max_img_size: int,
) -> Checkpoint:
    """Put a model together.

    Args:
        source: Where it comes from.
        modules: Its modules.
        inputs: What its encoders take.
        prompts: What stands around queries, texts and pages.
        tokenizer_json: The content of a ``tokenizers`` file.
        own: What the checkpoint itself reads.
        max_img_size: The most pixels of an image, as the side of a square.
    """
    late = PageInteractionSpec(
        query_tokens=min(_MAX_QUERY_TOKENS, inputs.max_tokens),
        query_suffix=prompts.query_suffix,
        page=prompts.page,
        image_token=prompts.image_token,
        max_documents=_MAX_DOCUMENTS,
    )
    contract = PageContract(modules.dim, inputs, late)
    spec = ModelSpec(
        family="colvision",
        pipeline="late_interaction",
        model_id=source.model_id,
        revision=source.revision,
        embedding_dim=modules.dim,
        text=TextSpec(
            query_prefix=prompts.query_prefix,
            document_prefix=prompts.document_prefix,
            pad_token_id=inputs.pad_token_id,
            max_tokens=inputs.max_tokens,
            buckets=inputs.tokens.buckets,
        ),
        late_interaction=late,
        image=inputs.image_spec,
        max_img_size=max_img_size,
        checkpoint_limits=own,
    )
    card = ModelCard(
        spec,
        (contract.rerank_text, contract.rerank_image),
        tokenizer_json,
        encoders=(contract.image_encoder,),
        sigmoid=False,
    )
    pieces = (
        Piece(contract.vision_encoder, modules.vision_encoder.eval(), inputs.sample_images),
        Piece(contract.text_encoder, modules.text_encoder.eval(), inputs.sample_texts),
        Piece(contract.scoring_head, MaxSim().eval(), contract.sample_vectors),
    )
    return Checkpoint(
        card, pieces, lambda: make_reference(modules.make_reference(), contract, inputs.max_tokens, max_img_size)
    )
