"""The tensor contract of rerankers that read a pair with its images as one prompt."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lychee_export.contract.signature import SCORE_OUTPUTS, ModelSignature, Tensors, TensorSpec
from lychee_export.families.image_inputs import ImageInputs, sign_text_encoder

__all__ = ["PairContract"]


@dataclass(frozen=True)
class PairContract:
    """Signatures of the models.

    Args:
        inputs: What the encoders take.
        hidden_dim: The length of what the text encoder makes of a pair.
    """

    inputs: ImageInputs
    hidden_dim: int

    @cached_property
    def text_encoder(self) -> ModelSignature:
        """The signature of the text encoder."""
        return sign_text_encoder(self.inputs, self._hidden)

    @cached_property
    def scoring_head(self) -> ModelSignature:
        """The signature of the scoring head."""
        return ModelSignature("scoring_head", (self._hidden,), SCORE_OUTPUTS, self.inputs.limits.largest_batch)

    @cached_property
    def rerank_text(self) -> ModelSignature:
        """The ensemble for pairs without an image."""
        return ModelSignature(
            "rerank_text",
            self.text_encoder.inputs,
            SCORE_OUTPUTS,
            self.inputs.limits.text_batch,
            steps=(self.text_encoder, self.scoring_head),
        )

    @cached_property
    def rerank_image(self) -> ModelSignature:
        """The ensemble for pairs with images."""
        return ModelSignature(
            "rerank_image",
            (*self.inputs.texts, *self.inputs.vision_encoder.inputs),
            SCORE_OUTPUTS,
            self.inputs.limits.image_batch,
            steps=(self.inputs.vision_encoder, self.text_encoder, self.scoring_head),
        )

    def sample_hidden(self, rng: np.random.Generator, rows: int) -> Tensors:
        """Make inputs of the scoring head."""
        return {"hidden": rng.standard_normal((rows, self.hidden_dim)).astype(np.float32)}

    @property
    def _hidden(self) -> TensorSpec:
        return TensorSpec("hidden", "float32", (self.hidden_dim,))
