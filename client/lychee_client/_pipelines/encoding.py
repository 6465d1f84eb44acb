"""The embeddings of one call: query and documents are encoded at the same time, each text and image once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import numpy as np

from lychee_client._embedding_cache import CachedEmbedding, Vector, look_up, store
from lychee_client._errors import InvalidInputError, InvalidOutputError, LycheeError
from lychee_client._operations import DECODE, Begin, Handle, Wait, in_thread
from lychee_client._pipelines.batches import Batches
from lychee_client._pipelines.encoder import TEXT_ENCODER, Encoder, Key, find_shared_length
from lychee_client._pipelines.lanes import Lane
from lychee_client._pipelines.scoring import Preparation
from lychee_client.preprocessing.image import Image, ImageSizes, PreparedImage
from lychee_client.preprocessing.text import TokenizedText
from lychee_client.transports.base import InferResponse, Tensor
from lychee_client.types import CacheUse

_KNOWN_QUERY: Final[Key] = ()  # no text has no tokens


class Encoding:
    """The texts and images of one call, under the keys of their embeddings.

    The query is added first, then images, then texts; then come `send` and `read`. What is wrong with the query is
    raised by the method that notices.

    Args:
        encoder: The encoders of the model.
        lane: How much of the server the call may take.

    Attributes:
        embeddings: The embeddings that are known so far, by key.
        errors: What is wrong with a text or image, by key. After `read`, every document's key is in exactly one of
            `embeddings` and `errors`.
        use: What the cache saved; None where there is no cache.
        began: The time at which the first document was to be sent, as `time.perf_counter` has it.
        preprocessed: The time at which the last image was prepared, by the same clock.
        query_encoded: The time at which the query's embedding was there, by the same clock.
    """

    def __init__(self, encoder: Encoder, lane: Lane) -> None:
        self.embeddings: dict[Key, CachedEmbedding] = {}
        self.errors: dict[Key, LycheeError] = {}
        self.use = None if encoder.cache is None else CacheUse(0, 0)
        self.began = self.preprocessed = self.query_encoded = time.perf_counter()
        self._encoder = encoder
        self._lane = lane
        self._query: list[Key] = []
        self._query_image: Handle[PreparedImage] | None = None  # until it is sent
        self._texts: dict[Key, TokenizedText] = {}
        self._images: dict[Key, Image] = {}
        self._prompts: dict[Key, TokenizedText] = {}  # in which images are read
        self._sizes: dict[Key, ImageSizes] = {}
        self._sent: set[Key] = set()
        self._looked_up: set[Key] = set()
        self._found: set[Key] = set()
        self._stale: set[Key] = set()  # images whose file changed between its key and its pixels
        self._documents: set[Key] = set()
        self._batches: Batches[Key] = Batches(encoder.manifest, lane, self._make_text_tensors, self._use, self._fail)
        self._preparation: Preparation[Key, PreparedImage] = Preparation((), self._begin_image, self._fail)

    async def add_query_image(self, image: Image) -> None:
        """Begin to prepare the query's image. Its pixels stay with it: no cache keeps its embedding."""
        self._query.append(image)
        self._sent.add(image)
        prepared = image.cached(self._encoder.image_spec)
        if prepared is not None:
            await self._send_image(image, prepared)
        else:
            spec = self._encoder.image_spec
            self._query_image = await Begin(partial(image.prepare, spec), partial(image.weigh, spec), DECODE)

    def add_query_embedding(self, embedding: Vector) -> None:
        """Take what `query_embedding` gave of a query that has been encoded before, in place of its parts."""
        self._query.append(_KNOWN_QUERY)
        self._keep(_KNOWN_QUERY, CachedEmbedding(embedding[0]))

    def add_query_text(self, text: TokenizedText) -> None:
        """Take the query's text."""
        key = self._encoder.make_text_key(text)
        self._query.append(key)
        self._texts[key] = text

    def add_image(self, image: Image, key: Key) -> None:
        """Take a document's image."""
        self._documents.add(key)
        self._images[key] = image

    def add_text(self, text: TokenizedText, key: Key | None = None) -> Key:
        """Take a document's text, and return its key: the given one, or what its tokens give."""
        key = self._encoder.make_text_key(text) if key is None else key
        self._documents.add(key)
        self._texts[key] = text
        return key

    async def begin_images(self) -> None:
        """Begin to prepare the documents' images, unless the cache may have their embeddings."""
        if self._encoder.cache is None:
            await self._begin_images()

    async def send_query_text(self) -> None:
        """Send the query's text, if it has one, alone."""
        await self._send_texts({key: self._texts[key].bucket for key in self._query if key in self._texts})

    async def look_up(self, keys: Sequence[bytes]) -> None:
        """Take what the cache has under some documents' keys, each of which is given once."""
        if self._encoder.cache is None or not keys:
            return
        found = await in_thread(partial(look_up, self._encoder.cache, keys, self._encoder.read_entry))
        for key, embedding in found.items():
            self._keep(key, embedding)
        self._found.update(found)
        self._looked_up.update(keys)
        known = self.use or CacheUse(0, 0)
        self.use = CacheUse(known.hits + len(found), known.misses + len(keys) - len(found))

    async def send(self) -> None:
        """Take from the cache what it has, and send the rest."""
        if self._encoder.cache is not None:
            keys = [key for key in (*self._texts, *self._images) if key in self._documents and isinstance(key, bytes)]
            await self.look_up([key for key in keys if key not in self._looked_up])
            await self._begin_images()
        self.began = self.preprocessed = time.perf_counter()
        lengths = {key: text.bucket for key, text in self._texts.items() if self._is_missing(key)}
        for key in lengths.keys() - self._documents:  # the query's text
            length = None
            bucket = lengths.pop(key)
            if not self._lane.is_patient:
                length = find_shared_length(bucket, lengths.values(), self._batches.find_max_batch_size(TEXT_ENCODER))
            if length is None:
                await self.send_query_text()
            else:
                lengths = {key: length, **lengths}
        await self._send_texts(lengths)
        while self._preparation.is_left:
            if self._query_image is not None and self._query_image.is_done:
                await self._send_query_image()
            await self._preparation.use_next(self._send_image)
        await self._send_query_image()

    async def read(self) -> Handle[None] | None:
        """Wait for what was sent, and begin to put it into the cache.

        Returns:
            The job that the call must wait for before it ends; None where nothing is to be kept.
        """
        await self._batches.read()
        self._images.clear()  # this object is part of a circle, and would keep the files until the next collection
        if self._encoder.cache is None:
            return None
        new = self._documents - self._found - self._stale
        computed = {key: self.embeddings[key] for key in new & self.embeddings.keys() if isinstance(key, bytes)}
        if not computed:
            return None
        return await Begin(partial(store, self._encoder.cache, computed, self._encoder.write_entry))

    def query_embedding(self) -> Vector:
        """Return it as one row; the embeddings of text and image together are their normalized sum.

        It is float32, (1, D); with late interaction float16, (1, query_tokens, D).
        """
        vectors = [self.embeddings[key].vector for key in self._query]
        total: Vector = np.sum(vectors, axis=0)[None]
        if len(vectors) > 1:
            total /= np.maximum(np.linalg.norm(total), np.float32(1e-12))
        return total

    def _is_missing(self, key: Key) -> bool:
        return key not in self.embeddings and key not in self._sent

    async def _begin_images(self) -> None:
        images = [key for key in self._images if self._is_missing(key)]
        self._preparation = Preparation(images, self._begin_image, self._fail)
        await self._preparation.begin()

    async def _send_texts(self, lengths: Mapping[Key, int]) -> None:
        self._sent.update(lengths)
        await self._batches.send_batches(TEXT_ENCODER, (self._encoder.outputs[TEXT_ENCODER],), lengths)

    def _make_text_tensors(self, keys: Sequence[Key]) -> Mapping[str, Tensor]:
        return self._encoder.make_text_tensors([self._texts[key] for key in keys])

    async def _begin_image(self, key: Key) -> Handle[PreparedImage] | PreparedImage:
        prepared = self._images[key].cached(self._encoder.image_spec) if self._encoder.cache is None else None
        weigh = partial(self._images[key].weigh, self._encoder.image_spec)
        return prepared or (await Begin(partial(self._prepare, key), weigh, DECODE))

    def _prepare(self, key: Key) -> PreparedImage:
        image = self._images[key]
        prepared = image.prepare(self._encoder.image_spec, keep=self._encoder.cache is None)
        if self._encoder.make_image_key(image) != key:
            self._stale.add(key)
        return prepared

    async def _send_query_image(self) -> None:
        """Wait until the query's image is prepared, and send it, if that is still to do."""
        handle, self._query_image = self._query_image, None
        if handle is not None:
            key = self._query[0]
            try:
                prepared = await Wait(handle)
            except InvalidInputError as error:
                self._fail(key, error)
            else:
                await self._send_image(key, prepared)

    async def _send_image(self, key: Key, image: PreparedImage) -> None:
        """Send one image alone, and let go of the pixels of those that were answered."""
        self.preprocessed = time.perf_counter()
        self._sizes[key] = image.sizes
        tensors, prompt = self._encoder.make_image_tensors(image)
        if prompt is not None:
            self._prompts[key] = prompt
        model_name = self._encoder.image_encoder
        await self._batches.send(model_name, (self._encoder.outputs[model_name],), tensors, [key])
        await self._batches.read_answered()

    def _use(self, model_name: str, response: InferResponse, keys: Sequence[Key]) -> None:
        texts = [self._texts.get(key, self._prompts.get(key)) for key in keys]
        vectors, errors = self._encoder.read(model_name, response, texts)
        for row, (key, vector) in enumerate(zip(keys, vectors, strict=True)):
            if row in errors:
                self._fail(key, errors[row])
            else:
                self._keep(key, CachedEmbedding(vector, self._sizes.get(key), texts[row]))

    def _keep(self, key: Key, embedding: CachedEmbedding) -> None:
        self.embeddings[key] = embedding
        if key in self._query:
            self.query_encoded = time.perf_counter()

    def _fail(self, key: Key, error: LycheeError) -> None:
        """Note what is wrong with a part of documents; raise what is wrong with a part of the query.

        Raises:
            LycheeError: The query's part cannot be used, the server refuses it, or the model gave no number for it.
        """
        if key not in self._query:
            self.errors[key] = error
        elif isinstance(error, InvalidInputError):
            raise InvalidInputError(f"query: {error}") from error
        elif isinstance(error, InvalidOutputError):
            raise InvalidOutputError(f"query: {error}", model_name=error.model_name) from error
        else:
            raise error
