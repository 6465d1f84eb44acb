"""A dual encoder's encoders: what they make, and what tells one text or image from another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np

from lychee_client._embedding_cache import (
    CachedEmbedding,
    EmbeddingCache,
    EmbeddingKeys,
    Vector,
    read_entry,
    write_entry,
)
from lychee_client._errors import InvalidOutputError
from lychee_client._pipelines.scoring import find_invalid, read_output
from lychee_client.manifest.image_spec import ImageSpec
from lychee_client.manifest.manifest import Manifest
from lychee_client.preprocessing.image import Image, PreparedImage
from lychee_client.preprocessing.text import TextProcessor, TokenizedText
from lychee_client.transports.base import InferResponse, Tensor

TEXT_ENCODER: Final = "text_encoder"
VISION_ENCODER: Final = "vision_encoder"
EMBEDDINGS: Final = {TEXT_ENCODER: "text_embedding", VISION_ENCODER: "image_embedding"}

# A query that joins the documents' request saves one of its own, and costs one more row, padded to the documents'
# length: for lychee-mini 1.5 instead of 4.2 ms at 16 tokens, about the same at twice the query's length. It joins few
# documents only: of many it would save a small part.
MAX_PADDING: Final = 2
MAX_COMPANIONS: Final = 4

# With a cache the name of an embedding in it; otherwise the tokens of a text, or the Image itself.
Key: TypeAlias = bytes | tuple[int, ...] | Image


class Encoder:
    """The encoders of one model.

    Args:
        manifest: The manifest of a dual encoder.
        text_processor: Turns texts into tensors; it has the model's tokenizer.
        image_spec: How to prepare images; None for a model that reads none.
        cache: Keeps the documents' embeddings; None keeps nothing.
    """

    outputs: Mapping[str, str] = EMBEDDINGS
    image_encoder = VISION_ENCODER

    def __init__(
        self,
        manifest: Manifest,
        text_processor: TextProcessor,
        image_spec: ImageSpec | None,
        cache: EmbeddingCache | None,
    ) -> None:
        assert manifest.embedding_dim is not None
        self.manifest = manifest
        self.embedding_dim = manifest.embedding_dim
        self.text_processor = text_processor
        self._image_spec = image_spec
        self.cache = cache
        self._text_keys = EmbeddingKeys(manifest, "token ids", TEXT_ENCODER)
        self._image_keys = EmbeddingKeys(manifest, repr(image_spec), VISION_ENCODER)

    @property
    def image_spec(self) -> ImageSpec:
        """How to prepare images, where there are any."""
        assert self._image_spec is not None
        return self._image_spec

    def make_text_key(self, text: TokenizedText) -> Key:
        """Return what only texts that the model reads alike have in common."""
        if self.cache is None:
            return tuple(text.ids)
        return self._text_keys.make(np.array(text.ids, "<i8").tobytes())

    def make_image_key(self, image: Image) -> Key:
        """Return what only images of one content have in common; without a cache, reading nothing, the object itself.

        Raises:
            InvalidInputError: The file cannot be read, or the Pillow image cannot be used.
        """
        return image if self.cache is None else self._image_keys.make(image.content_hash())

    def make_text_tensors(self, texts: Sequence[TokenizedText]) -> Mapping[str, Tensor]:
        """Return the tensors of a request to the text encoder."""
        return self.text_processor.to_tensors(texts)

    def make_image_tensors(self, image: PreparedImage) -> tuple[Mapping[str, Tensor], TokenizedText | None]:
        """Return the tensors of a request for one image, and the text that it is read in, if there is one.

        Raises:
            InvalidInputError: The image is larger than what the model reads.
        """
        return {"pixel_values": image.pixel_values[None]}, None

    def read(
        self, model_name: str, response: InferResponse, texts: Sequence[TokenizedText | None]
    ) -> tuple[Sequence[Vector], Mapping[int, InvalidOutputError]]:
        """Return what an encoder made of each row, and what is wrong with it, by row.

        Args:
            model_name: The name of the encoder.
            response: Its answer.
            texts: The text of each row; None for an image without one.

        Raises:
            ContractError: The answer has another shape than the contract's.
        """
        output = self.outputs[model_name]
        vectors = read_output(response, output, (len(texts), self.embedding_dim))
        return list(vectors), find_invalid(model_name, {output: vectors}, self.manifest)

    def read_entry(self, key: bytes, entry: bytes | None) -> CachedEmbedding | None:
        """Return what the cache keeps under a key; None if it is nothing of this encoder, or damaged."""
        return read_entry(key, entry, self.embedding_dim)

    def write_entry(self, key: bytes, embedding: CachedEmbedding) -> bytes:
        """Return what the cache is to keep under a key."""
        return write_entry(key, embedding)


def find_shared_length(query: int, documents: Iterable[int], max_batch_size: int) -> int | None:
    """Return the length of the documents that a query is to be sent with, or None if it is better sent alone.

    Args:
        query: The length in tokens that the query would be padded to if it were sent alone.
        documents: The length in tokens that each document that is to be sent will be padded to.
        max_batch_size: The most rows that a request to the text encoder may have.
    """
    for length, companions in sorted(Counter(documents).items()):
        if query <= length <= MAX_PADDING * query and companions < min(MAX_COMPANIONS + 1, max_batch_size):
            return length
    return None
