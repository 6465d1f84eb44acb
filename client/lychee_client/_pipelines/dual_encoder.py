"""Dual encoders: query and documents are encoded at the same time, then scoring heads compare their embeddings."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final, TypeAlias

import numpy as np

from lychee_client._embedding_cache import CachedEmbedding, EmbeddingCache, Vector, encoder_artifacts
from lychee_client._errors import InvalidInputError
from lychee_client._operations import TOKENIZE, Begin, Handle, Send, Stage, Wait, in_thread
from lychee_client._pipelines.encoder import EMBEDDINGS, TEXT_ENCODER, VISION_ENCODER, Encoder, Key
from lychee_client._pipelines.encoding import Encoding
from lychee_client._pipelines.lanes import LANES, Lane
from lychee_client._pipelines.scoring import (
    PROBE_TEXT,
    SCORE_OUTPUTS,
    Outcome,
    Preparation,
    Scoring,
    find_invalid,
    make_probe_image,
    read_output,
)
from lychee_client.manifest.image_spec import ImageSpec
from lychee_client.manifest.manifest import Manifest
from lychee_client.manifest.prompt_spec import Modality
from lychee_client.preprocessing.image import Image
from lychee_client.preprocessing.text import TextProcessor, TokenizedText
from lychee_client.preprocessing.windows import Room
from lychee_client.transports.base import InferRequest, Tensor
from lychee_client.types import Input, QueryReading, Timings, images_of, modality_of, text_of

HEADS: Final[dict[Modality, str]] = {
    "text": "scoring_head_text",
    "image": "scoring_head_image",
    "image_text": "scoring_head_image_text",
}
# So few are tokenized in at most 0.1 ms; handing them to a thread costs 0.05 ms, under asyncio 0.13.
MAX_INLINE_CHARACTERS: Final = 400
_TEXT: Final = EMBEDDINGS[TEXT_ENCODER]
_IMAGE: Final = EMBEDDINGS[VISION_ENCODER]

Tokenized: TypeAlias = tuple[TokenizedText | None, list[TokenizedText]]  # of the query, if it has a text; of documents


def can_cache(manifest: Manifest) -> bool:
    """Say whether a model's embeddings can be told from another one's."""
    encoders = [encoder for encoder in EMBEDDINGS if encoder in manifest.max_batch_size]
    return all(encoder_artifacts(manifest, encoder) for encoder in encoders)


class DualEncoder:
    """The calls to one model.

    Args:
        manifest: The manifest of the model.
        text_processor: Turns texts into tensors; it has the model's tokenizer.
        image_spec: How to prepare images.
        cache: Keeps the documents' embeddings, if the model passes `can_cache`. None keeps nothing.
    """

    in_one_row = False

    def __init__(
        self,
        manifest: Manifest,
        text_processor: TextProcessor,
        image_spec: ImageSpec,
        cache: EmbeddingCache | None = None,
    ) -> None:
        self._manifest = manifest
        self._text_processor = text_processor
        self._encoder = Encoder(manifest, text_processor, image_spec, cache if can_cache(manifest) else None)

    async def rerank(
        self,
        query: Input,
        documents: Sequence[Input],
        instruction: str | None = None,
        lane: Lane = LANES["interactive"],
        earlier: Outcome | None = None,
    ) -> Outcome:
        """See Pipeline."""
        started = time.perf_counter()

        def make_head_tensors(indexes: Sequence[int]) -> Mapping[str, Tensor]:
            """Return the tensors of documents of one modality."""
            vectors = {
                name: [encoding.embeddings[keys[index][name]].vector for index in indexes] for name in keys[indexes[0]]
            }
            return self.make_head_tensors(query_embedding, vectors)

        scoring = Scoring(self._manifest, lane, make_head_tensors, in_one_row=self.in_one_row)
        outcome = scoring.outcome
        encoding = Encoding(self._encoder, lane)
        outcome.embedding_cache = encoding.use
        self.check_images("query", query)
        valid = scoring.check_documents(documents, partial(self.check_images, "document"))
        if not valid:
            return outcome
        known = None if earlier is None else earlier.query_embedding
        if known is not None:
            encoding.add_query_embedding(known)
        unknown = query if known is None else None
        keys = await self.take_apart(unknown, instruction, documents, valid, scoring, encoding)
        await encoding.send()
        storing = await encoding.read()
        outcome.embedding_cache = encoding.use

        query_embedding = outcome.query_embedding = encoding.query_embedding()
        by_modality: dict[Modality, list[int]] = {modality: [] for modality in HEADS}
        for index, parts in keys.items():
            errors = [encoding.errors[key] for key in parts.values() if key in encoding.errors]
            if errors:
                outcome.fail(index, copy.copy(errors[0]))  # another document may have it too, with its own index
                continue
            by_modality[modality_of(documents[index])].append(index)
            for embedding in (encoding.embeddings[key] for key in parts.values()):
                if embedding.image is not None:
                    scoring.images[index] = embedding.image
                if embedding.text is not None:
                    scoring.tokens.setdefault(index, embedding.text)
        for modality, indexes in by_modality.items():
            made = {index: [encoding.embeddings[key] for key in keys[index].values()] for index in indexes}
            await self.send_to_head(scoring, modality, made)
        await scoring.read()
        if storing is not None:
            await Wait(storing)
        finished = time.perf_counter()
        outcome.timings = Timings(
            total_ms=1e3 * (finished - started),
            preprocess_ms=1e3 * (encoding.preprocessed - started),
            encode_query_ms=1e3 * (encoding.query_encoded - started),
            score_documents_ms=1e3 * (finished - encoding.began),
        )
        return outcome

    def find_tokens(self, text: str) -> Sequence[int]:
        """See Pipeline."""
        return self._text_processor.find_tokens(text)

    def find_room(self, query: Input, instruction: str | None) -> Room:
        """See Pipeline."""
        text = text_of(query)
        surplus = 0
        if text is not None:
            surplus = self._text_processor.find_query_surplus(text, self._find_prefix(instruction))
        return Room(surplus, lambda images: self._text_processor.find_document_surplus)

    async def probe(self, model_name: str) -> None:
        """See Pipeline."""
        dim = self._encoder.embedding_dim
        outputs, shape = ((EMBEDDINGS[model_name],), (1, dim)) if model_name in EMBEDDINGS else (SCORE_OUTPUTS, (1, 1))
        tensors: Mapping[str, Tensor]
        if model_name == TEXT_ENCODER:
            tensors = self._text_processor.to_tensors(self._text_processor.tokenize_documents([PROBE_TEXT]))
        elif model_name == VISION_ENCODER:
            image = await in_thread(partial(make_probe_image().prepare, self._encoder.image_spec))
            tensors = {"pixel_values": image.pixel_values[None]}
        else:
            names = ["query_embedding", *(name for name in (_TEXT, _IMAGE) if name.split("_")[0] in model_name)]
            tensors = dict.fromkeys(names, np.full((1, dim), dim**-0.5, np.float32))
        request = InferRequest(model_name, tensors, outputs, model_version=self._manifest.model_version)
        response = await Wait(await Send(request))
        tensors = {output: read_output(response, output, shape) for output in outputs}
        for error in find_invalid(model_name, tensors, self._manifest).values():
            raise error

    def make_head_tensors(self, query: Vector, documents: Mapping[str, Sequence[Vector]]) -> dict[str, Tensor]:
        """Return the tensors of a scoring head.

        Args:
            query: The query's embedding, (1, D).
            documents: The embeddings of the documents' parts, each (D,), by the names of their tensors.
        """
        count = len(next(iter(documents.values())))
        tensors: dict[str, Tensor] = {"query_embedding": np.repeat(query, count, axis=0)}
        return tensors | {name: np.stack(vectors) for name, vectors in documents.items()}

    async def send_to_head(
        self, scoring: Scoring, modality: Modality, documents: Mapping[int, Sequence[CachedEmbedding]]
    ) -> None:
        """Have documents of one modality scored, given the embeddings of their parts by index."""
        await scoring.send_batches(HEADS[modality], modality, dict.fromkeys(documents, 1))

    def check_images(self, what: str, value: Input) -> None:
        """Refuse more than one image.

        Raises:
            InvalidInputError: The query or document has several.
        """
        count = len(images_of(value))
        if count > 1:
            raise InvalidInputError(
                f"the {what} has {count} images, {self._manifest.model_id} reads one; send each as a {what} of its own"
            )

    async def take_apart(
        self,
        query: Input | None,
        instruction: str | None,
        documents: Sequence[Input],
        valid: Sequence[int],
        scoring: Scoring,
        encoding: Encoding,
    ) -> dict[int, dict[str, Key]]:
        """Tell the encoding what there is to encode; note tokens, and images that cannot be read.

        No query is given where its embedding is known.

        Returns:
            The keys of each document's embeddings by the names of their tensors, by index of the document.
        """
        texts = {index: text for index in valid if (text := text_of(documents[index])) is not None}
        images = {index: image for index in valid if (image := image_of(documents[index])) is not None}
        keys: dict[int, dict[str, Key]] = {index: {} for index in valid}

        async def note(index: int, key: Key) -> None:
            keys[index][_IMAGE] = key
            encoding.add_image(images[index], key)

        tokenize = partial(self._tokenize, query, instruction, list(texts.values()))
        characters = sum(map(len, texts.values())) + (0 if query is None else len(text_of(query) or ""))
        tokenizing: Handle[Tokenized] | Tokenized
        if characters > MAX_INLINE_CHARACTERS:
            tokenizing = await Begin(tokenize, name=TOKENIZE)
        else:
            with await Stage(TOKENIZE):
                tokenizing = tokenize()
        query_image = None if query is None else image_of(query)
        if query_image is not None:
            await encoding.add_query_image(query_image)
        naming = self._name_images(images, scoring)
        await naming.begin()
        if self._encoder.cache is None:
            await naming.for_each(note)
            await encoding.begin_images()
        query_text, tokens = (await Wait(tokenizing)) if isinstance(tokenizing, Handle) else tokenizing
        scoring.tokens.update(zip(texts, tokens, strict=True))
        if query is not None:
            scoring.outcome.query = QueryReading(modality_of(query))
        if query is not None and query_text is not None:
            scoring.outcome.query = QueryReading(modality_of(query), query_text.truncated, len(query_text.ids))
            encoding.add_query_text(query_text)
            if naming.is_left:
                await encoding.send_query_text()  # documents' files take time to read
        await naming.for_each(note)
        for index in scoring.outcome.errors.keys() & keys.keys():
            del keys[index]
        for index in keys:
            if index in scoring.tokens:
                keys[index][_TEXT] = encoding.add_text(scoring.tokens[index])
        return keys

    def _name_images(self, images: Mapping[int, Image], scoring: Scoring) -> Preparation[int, Key]:
        """Return the keys of the documents' images to come: with a cache their contents are read for them."""

        async def begin(index: int) -> Handle[Key] | Key:
            if self._encoder.cache is None:
                return self._encoder.make_image_key(images[index])
            return await Begin(partial(self._encoder.make_image_key, images[index]))

        return Preparation(list(images), begin, scoring.outcome.fail)

    def _tokenize(self, query: Input | None, instruction: str | None, texts: Sequence[str]) -> Tokenized:
        """Return the query's text, if it has one, and the documents'."""
        text = None if query is None else text_of(query)
        tokens = self._text_processor.tokenize_documents(texts) if texts else []
        if text is None:
            return None, tokens
        return self._text_processor.tokenize_query(text, self._find_prefix(instruction)), tokens

    def _find_prefix(self, instruction: str | None) -> str | None:
        """Return what is put before a query that has an instruction; None is the model's usual prefix."""
        spec = self._manifest.instruction
        if instruction is None or spec is None or spec.query_prefix is None:
            return None
        return spec.query_prefix.replace("{instruction}", instruction)


def image_of(value: Input) -> Image | None:
    """Return the first image of a query or document; None where there is none."""
    return next(iter(images_of(value)), None)
