"""What the dual encoders share: tensor contract, scoring heads and ensembles.

A family loads its two encoders and says how texts and images become tensors; everything else is here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from lychee_client.manifest import ModelSpec
from torch import Tensor, nn

from lychee_export.checkpoint.source import CheckpointSource
from lychee_export.contract.limits import Limits
from lychee_export.contract.signature import SCORE_OUTPUTS, ModelSignature, Tensors, TensorSpec
from lychee_export.families.dual_ranges import make_range_sampler
from lychee_export.families.dual_reference import ReferenceEncoders, make_reference
from lychee_export.families.family import Checkpoint, ModelCard, Piece
from lychee_export.families.fixed_image import FixedImageSpec, image_tensor
from lychee_export.families.text_format import TextFormat

__all__ = [
    "TEXT_CENTRE",
    "DualEncoder",
    "ScoringHead",
    "ScoringHeads",
    "at_least_float32",
    "build_checkpoint",
    "make_heads",
]

_PARTS = {"text": ("text",), "image": ("image",), "image_text": ("text", "image")}
"""The parts of a document by its modality, in the order in which its head takes them."""

TEXT_CENTRE = 0.75
"""Cosine of two texts that scores 0.5, for models that were trained on image-text pairs alone.

Such a model says nothing about what cosine of two texts means "relevant". The constant keeps the scores of text
documents inside [0, 1]; it is no calibration. The order of text documents is the model's.
"""

_TEXT_TOKENS_PER_RUN = 2048
_IMAGES_PER_RUN = 4
"""With these, a server of lychee-mini that was sent full batches of the longest texts and images stays at 1.0 GB
instead of 1.6 GB."""


@dataclass(frozen=True)
class DualEncoder:
    """The parts of a dual encoder.

    Args:
        text_encoder: The module from ``input_ids`` and ``attention_mask`` to ``text_embedding``.
        vision_encoder: The module from ``pixel_values`` to ``image_embedding``.
        heads: The heads by modality of the document: "text", "image", "image_text".
        embedding_dim: The size of an embedding.
        text: How texts are made.
        image: How images are made.
    """

    text_encoder: nn.Module
    vision_encoder: nn.Module
    heads: Mapping[str, nn.Module]
    embedding_dim: int
    text: TextFormat
    image: FixedImageSpec


class ScoringHead(nn.Module):
    """Score a query's embedding against the embeddings of a document's parts.

    Args:
        scales: The factors that the cosines with the parts are multiplied by: text, image, or both in this order.
        bias: The constant that is added to the sum of the scaled cosines.
    """

    def __init__(self, scales: Sequence[float], bias: float) -> None:
        super().__init__()
        self.scales = tuple(scales)
        self.bias = bias

    def forward(self, query_embedding: Tensor, *embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Score pairs.

        Args:
            query_embedding: float32, (batch_size, embedding_dim), rows of unit length.
            embeddings: The embeddings of the document's text, its image, or both in this order; each is float32,
                (batch_size, embedding_dim), with rows of unit length.

        Returns:
            relevance_score, float32, (batch_size, 1), in [0, 1]; logits, the same before the sigmoid, unbounded.
        """
        logits = torch.full((1, 1), self.bias)  # (1, 1)
        for scale, embedding in zip(self.scales, embeddings, strict=True):
            logits = logits + scale * (query_embedding * embedding).sum(-1, keepdim=True)  # (batch_size, 1)
        return torch.sigmoid(logits), logits


class ScoringHeads(nn.Module):
    """All heads as one model, because each model that Triton serves has a process of its own.

    Args:
        heads: The heads by modality of the document: "text", "image", "image_text".
    """

    def __init__(self, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(heads)

    def forward(
        self, query_embedding: Tensor, text_embedding: Tensor, image_embedding: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Score pairs with every head.

        Args:
            query_embedding: float32, (batch_size, embedding_dim), rows of unit length.
            text_embedding: The same of the documents' texts.
            image_embedding: The same of their images.

        Returns:
            The scores and logits of the text head, of the image head, and of that of both; each as in ScoringHead.
        """
        parts = {"text": text_embedding, "image": image_embedding}
        outputs = [
            output
            for modality, own in _PARTS.items()
            for output in self.heads[modality](query_embedding, *(parts[part] for part in own))
        ]
        return tuple(outputs)


def at_least_float32(values: Tensor) -> Tensor:
    """Widen half floats to float32; float64, in which a reference computes, stays."""
    return values if values.dtype == torch.float64 else values.float()


def make_heads(scale: float, image_bias: float) -> dict[str, nn.Module]:
    """Make the heads of a model that was trained on image-text pairs with ``scale * cosine``.

    The logit of a document with text and image is the mean of its parts' logits.

    Args:
        scale: The model's scale.
        image_bias: The constant that is added for an image: the model's own, or one that centres the scores.
    """
    text_bias = -scale * TEXT_CENTRE
    return {
        "text": ScoringHead((scale,), text_bias),
        "image": ScoringHead((scale,), image_bias),
        "image_text": ScoringHead((scale / 2, scale / 2), (text_bias + image_bias) / 2),
    }


def build_checkpoint(
    source: CheckpointSource,
    family: str,
    limits: Limits,
    model: DualEncoder,
    tokenizer_json: str,
    load_reference: Callable[[], ReferenceEncoders],
) -> Checkpoint:
    """Put a family's parts together.

    Args:
        source: The checkpoint that the parts come from.
        family: The family module's name.
        limits: What the deployment admits.
        model: The parts of the dual encoder.
        tokenizer_json: The content of a ``tokenizers`` file.
        load_reference: Makes the reference implementation.
    """
    pieces, heads, ensembles = _declare_models(model, limits)
    spec = ModelSpec(
        family=family,
        pipeline="dual_encoder",
        model_id=source.model_id,
        revision=source.revision,
        embedding_dim=model.embedding_dim,
        text=model.text.spec,
        image=model.image,
    )
    return Checkpoint(
        ModelCard(spec, ensembles, tokenizer_json, heads),
        pieces,
        lambda: make_reference(model.text, model.heads, tokenizer_json, load_reference()),
        make_range_sampler(model.text, model.image, tokenizer_json, lambda: load_reference().pixel_values),
    )


def _declare_models(
    model: DualEncoder, limits: Limits
) -> tuple[tuple[Piece, ...], tuple[ModelSignature, ...], tuple[ModelSignature, ...]]:
    """Declare the tensor contract.

    Returns:
        The pieces, encoders first; the heads, which are ensembles of one step; and the ensembles.
    """
    dim = model.embedding_dim
    query_embedding = TensorSpec("query_embedding", "float32", (dim,))
    text_signature = ModelSignature(
        "text_encoder",
        model.text.tensors,
        (TensorSpec("text_embedding", "float32", (dim,)),),
        limits.text_batch,
        encoder=True,
        max_run_elements=_TEXT_TOKENS_PER_RUN,
    )
    vision_signature = ModelSignature(
        "vision_encoder",
        (image_tensor(model.image),),
        (TensorSpec("image_embedding", "float32", (dim,)),),
        limits.image_batch,
        encoder=True,
        max_run_elements=_IMAGES_PER_RUN * 3 * model.image.height * model.image.width,
    )

    def sample_images(rng: np.random.Generator, rows: int) -> Tensors:
        shape = (rows, 3, model.image.height, model.image.width)
        return {"pixel_values": rng.integers(0, 256, shape, dtype=np.uint8)}

    encoders_by_part = {"text": text_signature, "image": vision_signature}
    embeddings = (query_embedding, *(encoder.outputs[0] for encoder in encoders_by_part.values()))
    scoring_heads = ModelSignature(
        "scoring_heads",
        embeddings,
        tuple(replace(spec, name=f"{modality}_{spec.name}") for modality in _PARTS for spec in SCORE_OUTPUTS),
        limits.largest_batch,
    )
    heads, ensembles = [], []
    for modality, parts in _PARTS.items():
        encoders = [encoders_by_part[part] for part in parts]
        own = [encoder.outputs[0] for encoder in encoders]
        # The inputs of the other heads are filled, too: with what is there.
        names = {spec.name: own[0].name for spec in embeddings[1:] if spec not in own}
        names |= {f"{modality}_{spec.name}": spec.name for spec in SCORE_OUTPUTS}
        batch = min(encoder.max_batch_size for encoder in encoders)
        heads.append(
            ModelSignature(
                f"scoring_head_{modality}",
                (query_embedding, *own),
                SCORE_OUTPUTS,
                max(limits.text_batch, batch),
                steps=(scoring_heads,),
                names=names,
            )
        )
        ensembles.append(
            ModelSignature(
                f"rerank_{modality}",
                (query_embedding, *(tensor for encoder in encoders for tensor in encoder.inputs)),
                SCORE_OUTPUTS,
                batch,
                steps=(*encoders, scoring_heads),
                names=names,
            )
        )
    pieces = (
        Piece(text_signature, model.text_encoder.eval(), model.text.sample),
        Piece(vision_signature, model.vision_encoder.eval(), sample_images),
        Piece(scoring_heads, ScoringHeads(model.heads).eval(), _unit_vectors(embeddings)),
    )
    return pieces, tuple(heads), tuple(ensembles)


def _unit_vectors(specs: Sequence[TensorSpec]) -> Callable[[np.random.Generator, int], Tensors]:
    def sample(rng: np.random.Generator, rows: int) -> Tensors:
        vectors = rng.standard_normal((len(specs), rows, *specs[0].triton_dims)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
        return dict(zip((spec.name for spec in specs), vectors, strict=True))

    return sample
