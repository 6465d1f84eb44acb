"""Embeddings of one call's documents: those that the cache has, and those that have to be computed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from lychee_client._embedding_cache import CachedEmbedding, EmbeddingCache, EmbeddingKeys, look_up, store
from lychee_client._errors import LycheeError
from lychee_client._image import Image, ImageSizes, PreparedImage
from lychee_client._image_spec import ImageSpec
from lychee_client._manifest import Manifest
from lychee_client._pipelines.batches import Batches
from lychee_client._pipelines.dual_encoder import TEXT_ENCODER, VISION_ENCODER
from lychee_client._pipelines.lanes import Lane
from lychee_client._pipelines.scoring import Preparation, read_output
from lychee_client._plan import Handle, Plan, run, wait
from lychee_client._text import TextProcessor, TokenizedText
from lychee_client._transports.base import InferResponse, Tensor
from lychee_client._types import CacheUse

EMBEDDINGS: Final = {TEXT_ENCODER: "text_embedding", VISION_ENCODER: "image_embedding"}


class Encoder:
    """Makes embeddings with one model and one cache.

    Args:
        manifest: Of a dual encoder.
        text_processor: Made from the model's tokenizer.
        image_spec: How to prepare images.
        cache: Keeps the embeddings.
    """

    def __init__(
        self, manifest: Manifest, text_processor: TextProcessor, image_spec: ImageSpec, cache: EmbeddingCache
    ) -> None:
        assert manifest.embedding_dim is not None
        self.manifest = manifest
        self.embedding_dim = manifest.embedding_dim
        self.text_processor = text_processor
        self.image_spec = image_spec
        self.cache = cache
        self.text_keys = EmbeddingKeys(manifest, TEXT_ENCODER, "token ids")
        self.image_keys = EmbeddingKeys(manifest, VISION_ENCODER, repr(image_spec))


class Encoding:
    """What one call's documents are made of, each text and image once, under the key of its embedding.

    Args:
        encoder: Of the model.
        lane: How much of the server the call may take.

    Attributes:
        texts: As the model reads them; to be filled before `send`.
        images: The same; their pixels do not stay with the objects.
        embeddings: By key.
        errors: By key; after `read`, every key is in exactly one of the two.
        use: What the cache saved.
        began: When the encoding began, as `time.perf_counter` has it.
        preprocessed: When the last image was prepared.
    """

    def __init__(self, encoder: Encoder, lane: Lane) -> None:
        self.texts: dict[bytes, TokenizedText] = {}
        self.images: dict[bytes, Image] = {}
        self.embeddings: dict[bytes, CachedEmbedding] = {}
        self.errors: dict[bytes, LycheeError] = {}
        self.use = CacheUse(0, 0)
        self.began = self.preprocessed = time.perf_counter()
        self._encoder = encoder
        self._max_images_in_flight = lane.max_rows_in_flight
        self._sizes: dict[bytes, ImageSizes] = {}
        self._found: set[bytes] = set()
        self._stale: set[bytes] = set()  # images whose file changed between its key and its pixels
        self._batches = Batches(encoder.manifest, lane, self._make_text_tensors, self._use, self.errors.__setitem__)

    def send(self) -> Plan[None]:
        """Take from the cache what it has, and send the rest."""
        keys = [*self.texts, *self.images]
        looking = yield from run(partial(look_up, self._encoder.cache, keys, self._encoder.embedding_dim))
        found = yield from wait(looking)
        self.embeddings |= found
        self._found |= found.keys()
        self.use = CacheUse(hits=len(found), misses=len(keys) - len(found))

        images = [key for key in self.images if key not in found]
        preparation = Preparation(images, self._begin_image, self.errors.__setitem__)
        yield from preparation.begin()
        lengths = {key: text.bucket for key, text in self.texts.items() if key not in found}
        yield from self._batches.send_batches(TEXT_ENCODER, (EMBEDDINGS[TEXT_ENCODER],), lengths)
        yield from preparation.for_each(self._send_image)

    def read(self) -> Plan[Handle[None] | None]:
        """Wait for what was sent, and begin to put it into the cache.

        Returns:
            To be waited for before the call ends; None where nothing was computed.
        """
        yield from self._batches.read()
        known = self._found | self._stale
        computed = {key: embedding for key, embedding in self.embeddings.items() if key not in known}
        return (yield from run(partial(store, self._encoder.cache, computed))) if computed else None

    def _make_text_tensors(self, keys: Sequence[bytes]) -> Mapping[str, Tensor]:
        return self._encoder.text_processor.to_tensors([self.texts[key] for key in keys])

    def _begin_image(self, key: bytes) -> Plan[Handle[PreparedImage] | PreparedImage]:
        return (yield from run(partial(self._prepare, key)))

    def _prepare(self, key: bytes) -> PreparedImage:
        image = self.images[key]
        prepared = image.prepare(self._encoder.image_spec, keep=False)
        if self._encoder.image_keys.make(image.content_hash()) != key:
            self._stale.add(key)
        return prepared

    def _send_image(self, key: bytes, image: PreparedImage) -> Plan[None]:
        """Send one image alone, and let go of the pixels of those that were answered."""
        self.preprocessed = time.perf_counter()
        self._sizes[key] = image.sizes
        tensors = {"pixel_values": image.pixel_values[None]}
        yield from self._batches.send(VISION_ENCODER, (EMBEDDINGS[VISION_ENCODER],), tensors, [key])
        yield from self._batches.read(leave=self._max_images_in_flight)

    def _use(self, model_name: str, response: InferResponse, keys: Sequence[bytes]) -> None:
        vectors = read_output(response, EMBEDDINGS[model_name], (len(keys), self._encoder.embedding_dim))
        for key, vector in zip(keys, vectors, strict=True):
            self.embeddings[key] = CachedEmbedding(vector, self._sizes.get(key))
