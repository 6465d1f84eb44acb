"""The tensor contract of Llama Nemotron VL."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lychee_export.contract.signature import SCORE_OUTPUTS, ModelSignature, Tensors, TensorSpec
from lychee_export.families.tiles import TileInputs

__all__ = ["ImageContract"]


@dataclass(frozen=True)
class ImageContract(TileInputs):
    """Signatures of the models."""

    @cached_property
    def text_encoder(self) -> ModelSignature:
        """The signature of the text encoder."""
        return self.sign_text_encoder(self._hidden)

    @cached_property
    def scoring_head(self) -> ModelSignature:
        """The signature of the scoring head."""
        return ModelSignature("scoring_head", (self._hidden,), SCORE_OUTPUTS, self.most_rows)

    @cached_property
    def rerank_text(self) -> ModelSignature:
        """The ensemble for documents without an image."""
        return ModelSignature(
            "rerank_text",
            self.text_encoder.inputs,
            SCORE_OUTPUTS,
            self.limits.text_batch,
            steps=(self.text_encoder, self.scoring_head),
        )

    @cached_property
    def rerank_image(self) -> ModelSignature:
        """The ensemble for documents with one."""
        return ModelSignature(
            "rerank_image",
            (*self.text.tensors, *self.vision_encoder.inputs),
            SCORE_OUTPUTS,
            self.limits.image_batch,
            steps=(self.vision_encoder, self.text_encoder, self.scoring_head),
        )

    def sample_hidden(self, rng: np.random.Generator, rows: int) -> Tensors:
        """Make inputs of the scoring head."""
        return {"hidden": rng.standard_normal((rows, self.image.embedding_dim)).astype(np.float32)}

    @property
    def _hidden(self) -> TensorSpec:
        return TensorSpec("hidden", "float32", (self.image.embedding_dim,))
