"""What the encoders take of models that read images in a prompt, whatever is made of their states."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from lychee_client.manifest import TokenImageSpec

from lychee_export.contract.limits import Limits
from lychee_export.contract.signature import Axis, ModelSignature, Tensors, TensorSpec

__all__ = ["ImageInputs", "sign_text_encoder"]

_TOKENS_PER_RUN = 4096


class ImageInputs(Protocol):
    """What the two encoders of a model take; see ``qwen_vl.inputs.PatchInputs`` and ``tiles.TileInputs``."""

    @property
    def limits(self) -> Limits:
        """What the deployment admits."""

    @property
    def tokens(self) -> Axis:
        """The axis of ``input_ids``."""

    @property
    def texts(self) -> tuple[TensorSpec, TensorSpec]:
        """The tokens, and which of them are no padding."""

    @property
    def embedded(self) -> tuple[TensorSpec, ...]:
        """What the text encoder gets of a row's images, beside the tokens."""

    @property
    def max_tokens(self) -> int:
        """The length of the longest sequence."""

    @property
    def pad_token_id(self) -> int:
        """The token that fills a sequence up to its bucket."""

    @property
    def image_spec(self) -> TokenImageSpec:
        """What the client is told of images."""

    @property
    def vision_encoder(self) -> ModelSignature:
        """The signature of the vision encoder."""

    def sample_images(self, rng: np.random.Generator, rows: int) -> Tensors:
        """Make inputs of the vision encoder."""

    def sample_texts(self, rng: np.random.Generator, rows: int) -> Tensors:
        """Make inputs of the text encoder."""


def sign_text_encoder(inputs: ImageInputs, output: TensorSpec) -> ModelSignature:
    """Return the signature of a text encoder with this output."""
    return ModelSignature(
        "text_encoder",
        (*inputs.texts, *inputs.embedded),
        (output,),
        inputs.limits.largest_batch,
        encoder=True,
        max_run_elements=max(_TOKENS_PER_RUN, inputs.tokens.maximum),
        run_input="input_ids",
        accelerated=False,
    )
