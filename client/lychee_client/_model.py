"""The server's model as one client uses it: its manifest, and the pipeline that fits."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lychee_client._embedding_cache import EmbeddingCache
from lychee_client._errors import ConfigurationError
from lychee_client._image_spec import ImageSpec, PatchSpec
from lychee_client._manifest import Manifest
from lychee_client._pipelines.cross_encoder import CrossEncoder
from lychee_client._pipelines.dual_encoder import DualEncoder
from lychee_client._pipelines.scoring import Pipeline
from lychee_client._prompt import PromptProcessor
from lychee_client._text import TextProcessor


@dataclass(frozen=True, slots=True)
class Model:
    """What a client knows about the server's model.

    Attributes:
        manifest: As the server has it.
        pipeline: Prepares images as the client was asked to; uses the embedding cache where there is one.
        reference_pipeline: Prepares images as the model was exported and computes everything, for the golden pairs.
        warning: What is wrong with the client's max_img_size, or None.
    """

    manifest: Manifest
    pipeline: Pipeline
    reference_pipeline: Pipeline
    warning: str | None


def load_model(
    manifest: Manifest,
    tokenizer_json: str,
    max_img_size: int | None,
    embedding_cache: EmbeddingCache | None = None,
) -> Model:
    """Choose the model's pipeline.

    Args:
        manifest: Of the model.
        tokenizer_json: The model's tokenizer.
        max_img_size: See ClientConfig.
        embedding_cache: See LycheeClient.

    Raises:
        ConfigurationError: `max_img_size` is below the model's minimum.
        ContractError: The tokenizer cannot be read, or does not fit the manifest.
    """
    image_spec, warning = limit_images(manifest, max_img_size)
    if manifest.prompt is not None:
        prompts = PromptProcessor(tokenizer_json, manifest.text, manifest.prompt)
        reference = CrossEncoder(manifest, prompts, manifest.image)
        return Model(manifest, CrossEncoder(manifest, prompts, image_spec), reference, warning)
    texts = TextProcessor(tokenizer_json, manifest.text)
    pipeline = DualEncoder(manifest, texts, image_spec, embedding_cache)
    return Model(manifest, pipeline, DualEncoder(manifest, texts, manifest.image), warning)


def limit_images(manifest: Manifest, max_img_size: int | None) -> tuple[ImageSpec, str | None]:
    """Return how to prepare images with at most so many pixels, and a warning if that changes nothing.

    Args:
        manifest: Of the model.
        max_img_size: Most pixels of one image, as the side of a square. None: the model's own limit.

    Raises:
        ConfigurationError: It is below the model's minimum.
    """
    spec = manifest.image
    if max_img_size is None:
        return spec, None
    if not isinstance(spec, PatchSpec):
        size = f"{spec.width} x {spec.height}"
        return spec, f"{manifest.model_id} reads every image as {size} pixels; max_img_size has no effect"
    assert manifest.max_img_size is not None
    if max_img_size > manifest.max_img_size:
        return spec, (
            f"max_img_size is {max_img_size}, but {manifest.model_id} was exported with {manifest.max_img_size}, which "
            "remains the limit; export it again with a larger one"
        )
    least = max(spec.min_pixels, spec.block_size**2)
    if max_img_size**2 < least:
        raise ConfigurationError(
            f"max_img_size is {max_img_size}; {manifest.model_id} needs images of at least {least} pixels: expected "
            f"{math.isqrt(least - 1) + 1} to {manifest.max_img_size}, or None for the model's own limit"
        )
    return replace(spec, max_pixels=min(spec.max_pixels, max_img_size**2)), None
