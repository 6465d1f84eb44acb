"""The server's model as one client uses it: its manifest, and the pipeline that fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

import msgspec

from lychee_client._assets import hash_text
from lychee_client._embedding_cache import EmbeddingCache
from lychee_client._pipelines.cross_encoder import CrossEncoder
from lychee_client._pipelines.dual_encoder import DualEncoder
from lychee_client._pipelines.late_interaction import LateInteraction, TokenTextProcessor
from lychee_client._pipelines.scoring import Pipeline
from lychee_client.manifest.late_interaction_spec import PageInteractionSpec
from lychee_client.manifest.manifest import Manifest
from lychee_client.preprocessing.image_limit import limit_images
from lychee_client.preprocessing.marked_text import MarkedTextProcessor
from lychee_client.preprocessing.page_text import PageTextProcessor
from lychee_client.preprocessing.prompt import PromptProcessor
from lychee_client.preprocessing.text import TextProcessor

Processor = TypeVar("Processor", TextProcessor, PromptProcessor, MarkedTextProcessor, PageTextProcessor)

# A tokenizer of 150,000 tokens takes a second and up to 100 MB, so clients of the same model share one.
_processors: Final[WeakValueDictionary[tuple[str, bytes], Any]] = WeakValueDictionary()


@dataclass(frozen=True, slots=True)
class Model:
    """What a client knows about the server's model.

    Attributes:
        manifest: The server's manifest, with what executes each encoder.
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
        manifest: The manifest of the model.
        tokenizer_json: The model's tokenizer.
        max_img_size: See ClientConfig.
        embedding_cache: See LycheeClient.

    Raises:
        ConfigurationError: `max_img_size` is below the model's minimum.
        ContractError: The tokenizer cannot be read, or does not fit the manifest.
    """
    image_spec, warning = limit_images(manifest, max_img_size)
    if manifest.prompt is not None:
        prompts = _share(PromptProcessor, tokenizer_json, manifest.text, manifest.prompt)
        reference = CrossEncoder(manifest, prompts, manifest.image)
        return Model(manifest, CrossEncoder(manifest, prompts, image_spec, embedding_cache), reference, warning)
    if manifest.late_interaction is not None:
        tokens: TokenTextProcessor
        if isinstance(manifest.late_interaction, PageInteractionSpec):
            tokens = _share(PageTextProcessor, tokenizer_json, manifest.text, manifest.late_interaction)
        else:
            tokens = _share(MarkedTextProcessor, tokenizer_json, manifest.text, manifest.late_interaction)
        late = LateInteraction(manifest, tokens, manifest.image)
        return Model(manifest, LateInteraction(manifest, tokens, image_spec, embedding_cache), late, warning)
    assert image_spec is not None
    assert manifest.image is not None  # a dual encoder's manifest has it
    texts = _share(TextProcessor, tokenizer_json, manifest.text)
    pipeline = DualEncoder(manifest, texts, image_spec, embedding_cache)
    return Model(manifest, pipeline, DualEncoder(manifest, texts, manifest.image), warning)


def _share(kind: Callable[..., Processor], tokenizer_json: str, *specs: msgspec.Struct) -> Processor:
    """Return the processor that another client made of the same tokenizer and specifications, or a new one."""
    key = hash_text(tokenizer_json), msgspec.json.encode(specs)
    processor: Processor | None = _processors.get(key)
    if processor is None:
        processor = _processors.setdefault(key, kind(tokenizer_json, *specs))
    return processor
