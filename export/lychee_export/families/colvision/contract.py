"""The tensor contract of models that read pages: the same whatever makes the vectors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from lychee_client.manifest import PageInteractionSpec

from lychee_export.contract.signature import SCORE_OUTPUTS, Axis, ModelSignature, Tensors, TensorSpec
from lychee_export.families.image_inputs import ImageInputs, sign_text_encoder
from lychee_export.families.maxsim import DOCUMENT_EMBEDDINGS, sample_vectors, sign_max_sim

__all__ = ["PageContract"]

_SAMPLE_TOKENS = 12
"""Of a query and of a document."""


@dataclass(frozen=True)
class PageContract:
    """Signatures of the models.

    Args:
        dim: The length of a vector.
        inputs: What the encoders take.
        late: What is known of queries and documents.
    """

    dim: int
    inputs: ImageInputs
    late: PageInteractionSpec

    @cached_property
    def vision_encoder(self) -> ModelSignature:
        """The signature of the vision encoder."""
        return self.inputs.vision_encoder

    @cached_property
    def text_encoder(self) -> ModelSignature:
        """The signature of the encoder of texts and pages, which makes a vector of every token."""
        vectors = TensorSpec("token_embeddings", "float16", (1, self.inputs.tokens, self.dim))
        return sign_text_encoder(self.inputs, vectors)

    @cached_property
    def scoring_head(self) -> ModelSignature:
        """The signature of the scoring head, which compares many documents of one row with the row's query."""
        return sign_max_sim(self._query, self.inputs.tokens, self.late.max_documents, self.inputs.limits.largest_batch)

    @cached_property
    def image_encoder(self) -> ModelSignature:
        """The ensemble that makes a page's vectors."""
        return ModelSignature(
            "image_encoder",
            self._page,
            self.text_encoder.outputs,
            self.inputs.limits.image_batch,
            steps=(self.vision_encoder, self.text_encoder),
        )

    @cached_property
    def rerank_text(self) -> ModelSignature:
        """The ensemble for documents that are texts."""
        return ModelSignature(
            "rerank_text",
            (self._query, *self.text_encoder.inputs),
            SCORE_OUTPUTS,
            self.inputs.limits.text_batch,
            steps=(self.text_encoder, self.scoring_head),
            names={"token_embeddings": DOCUMENT_EMBEDDINGS},
        )

    @cached_property
    def rerank_image(self) -> ModelSignature:
        """The ensemble for documents that are pages."""
        return ModelSignature(
            "rerank_image",
            (self._query, *self._page),
            SCORE_OUTPUTS,
            self.inputs.limits.image_batch,
            steps=(self.vision_encoder, self.text_encoder, self.scoring_head),
            names={"token_embeddings": DOCUMENT_EMBEDDINGS},
        )

    def sample_vectors(self, rng: np.random.Generator, rows: int) -> Tensors:
        """Make inputs of the scoring head."""
        return sample_vectors(rng, rows, _SAMPLE_TOKENS, _SAMPLE_TOKENS, self.dim)

    @property
    def _query(self) -> TensorSpec:
        most = self.late.query_tokens
        lengths = (*(size for size in self.inputs.tokens.buckets if size < most), most)
        return TensorSpec("query_embeddings", "float16", (1, Axis("query_length", lengths), self.dim))

    @property
    def _page(self) -> tuple[TensorSpec, ...]:
        return (*self.inputs.texts, *self.vision_encoder.inputs)
