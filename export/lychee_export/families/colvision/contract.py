"""The tensor contract of models that read pages: the same whatever makes the vectors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from lychee_client.manifest import PageInteractionSpec
from numpy.typing import NDArray

from lychee_export.contract.limits import Limits
from lychee_export.contract.signature import SCORE_OUTPUTS, Axis, ModelSignature, Tensors, TensorSpec

__all__ = ["PageContract", "token_embeddings"]

_SAMPLE_TOKENS = 12
"""Of a query and of a document."""


def token_embeddings(tokens: Axis, dim: int) -> TensorSpec:
    """Return what encoders of texts and pages give: float16, (batch_size, 1, sequence_length, dim)."""
    return TensorSpec("token_embeddings", "float16", (1, tokens, dim))


@dataclass(frozen=True)
class PageContract:
    """Signatures of the models.

    Args:
        dim: The length of a vector.
        tokens: The axis of ``input_ids``.
        texts: The tokens of a text or page, and which of them are no padding.
        vision_encoder: The signature of the vision encoder.
        text_encoder: The signature of the text encoder, which gives `token_embeddings`.
        late: What is known of queries and documents.
        limits: What the deployment admits.
    """

    dim: int
    tokens: Axis
    texts: tuple[TensorSpec, ...]
    vision_encoder: ModelSignature
    text_encoder: ModelSignature
    late: PageInteractionSpec
    limits: Limits

    @cached_property
    def scoring_head(self) -> ModelSignature:
        """The signature of the scoring head, which compares many documents of one row with the row's query."""
        documents = Axis("documents", (self.late.max_documents,))
        return ModelSignature(
            "scoring_head",
            (self._query, TensorSpec("document_embeddings", "float16", (documents, self.tokens, self.dim))),
            tuple(TensorSpec(output.name, output.dtype, (documents,)) for output in SCORE_OUTPUTS),
            max(self.limits.text_batch, self.limits.image_batch),
        )

    @cached_property
    def image_encoder(self) -> ModelSignature:
        """The ensemble that makes a page's vectors."""
        return ModelSignature(
            "image_encoder",
            (*self.texts, *self.vision_encoder.inputs),
            self.text_encoder.outputs,
            self.limits.image_batch,
            steps=(self.vision_encoder, self.text_encoder),
        )

    @cached_property
    def rerank_text(self) -> ModelSignature:
        """The ensemble for documents that are texts."""
        return ModelSignature(
            "rerank_text",
            (self._query, *self.text_encoder.inputs),
            SCORE_OUTPUTS,
            self.limits.text_batch,
            steps=(self.text_encoder, self.scoring_head),
            names={"token_embeddings": "document_embeddings"},
        )

    @cached_property
    def rerank_image(self) -> ModelSignature:
        """The ensemble for documents that are pages."""
        return ModelSignature(
            "rerank_image",
            (self._query, *self.texts, *self.vision_encoder.inputs),
            SCORE_OUTPUTS,
            self.limits.image_batch,
            steps=(self.vision_encoder, self.text_encoder, self.scoring_head),
            names={"token_embeddings": "document_embeddings"},
        )

    def sample_vectors(self, rng: np.random.Generator, rows: int) -> Tensors:
        """Make inputs of the scoring head: vectors of unit length."""

        def draw(*shape: int) -> NDArray[np.float16]:
            vectors = rng.standard_normal((rows, *shape, self.dim))
            unit: NDArray[np.float16] = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float16)
            return unit

        return {
            "query_embeddings": draw(1, _SAMPLE_TOKENS),
            "document_embeddings": draw(rows + 1, _SAMPLE_TOKENS),
        }

    @property
    def _query(self) -> TensorSpec:
        length = Axis("query_length", (self.late.query_tokens,), padded=False)  # padding would count
        return TensorSpec("query_embeddings", "float16", (1, length, self.dim))
