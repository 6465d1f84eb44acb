"""Late interaction (ColBERT): a text is many vectors, and a document's are compared with each of the query's.

The calls are those of a dual encoder, and so is what is cached: what an encoder made of a document. A document is named
by its characters, so that one that is cached is not even tokenized; only its vectors that count are kept and sent. The
scoring head takes many documents in one row, beside their query.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Final, TypeAlias

import msgspec
import numpy as np

from lychee_client._embedding_cache import (
    CachedEmbedding,
    EmbeddingCache,
    EmbeddingKeys,
    Vector,
    read_token_vectors,
    write_token_vectors,
)
from lychee_client._errors import ContractError, InvalidInputError, InvalidOutputError
from lychee_client._operations import TOKENIZE, Send, Stage, Wait, in_thread
from lychee_client._pipelines.cross_encoder import check_modality
from lychee_client._pipelines.dual_encoder import MAX_INLINE_CHARACTERS, DualEncoder, Tokenized, can_cache, image_of
from lychee_client._pipelines.encoder import MAX_COMPANIONS, TEXT_ENCODER, VISION_ENCODER, Encoder, Key
from lychee_client._pipelines.encoding import Encoding
from lychee_client._pipelines.image_tensors import pack_images, without_images
from lychee_client._pipelines.scoring import (
    PROBE_TEXT,
    SCORE_OUTPUTS,
    Scoring,
    find_invalid,
    make_probe_image,
    read_output,
)
from lychee_client.manifest.image_spec import ImageSpec
from lychee_client.manifest.late_interaction_spec import AnyLateInteractionSpec, PageInteractionSpec
from lychee_client.manifest.manifest import Manifest
from lychee_client.manifest.prompt_spec import Modality
from lychee_client.preprocessing.image import PreparedImage
from lychee_client.preprocessing.marked_text import MarkedTextProcessor
from lychee_client.preprocessing.page_text import PageTextProcessor
from lychee_client.preprocessing.text import TokenizedText
from lychee_client.transports.base import InferRequest, InferResponse, Tensor
from lychee_client.types import Input, QueryReading, images_of, modality_of, text_of

TokenTextProcessor: TypeAlias = MarkedTextProcessor | PageTextProcessor

HEAD: Final = "scoring_head"
IMAGE_ENCODER: Final = "image_encoder"
TOKEN_EMBEDDINGS: Final = "token_embeddings"
QUERY_EMBEDDINGS: Final = "query_embeddings"
DOCUMENT_EMBEDDINGS: Final = "document_embeddings"
_RANK: Final = 4  # rows, documents in each, tokens, numbers of a vector

# Vectors of documents in one request to the head, padding included. With 128 numbers each, 12,800 take 3.3 MB, and the
# head 1.1 ms; 100,000 in one request took it 56 ms (2 cores of an AMD EPYC, Zen 4, least of 11), because what it works
# on no longer fits the CPU's caches. And while one is computed, the next is packed.
VECTORS_PER_REQUEST: Final = 12_800


class TokenEncoder(Encoder):
    """The encoders of one model, which make a vector of each token: of a text, or of a page that an image is read as.

    Args:
        manifest: The manifest of a model with late interaction.
        text_processor: Turns texts into tensors, and says which tokens count.
        image_spec: How to prepare images; None for a model that reads none.
        cache: Keeps the documents' vectors; None keeps nothing.
    """

    outputs: Mapping[str, str] = {TEXT_ENCODER: TOKEN_EMBEDDINGS, IMAGE_ENCODER: TOKEN_EMBEDDINGS}
    image_encoder = IMAGE_ENCODER

    def __init__(
        self,
        manifest: Manifest,
        text_processor: TokenTextProcessor,
        image_spec: ImageSpec | None,
        cache: EmbeddingCache | None,
    ) -> None:
        super().__init__(manifest, text_processor, image_spec, cache)
        self._texts = text_processor
        reading = msgspec.json.encode((manifest.text, manifest.late_interaction, manifest.artifacts["tokenizer"]))
        self._document_keys = EmbeddingKeys(manifest, reading.decode(), TEXT_ENCODER)
        preparing = f"{image_spec!r} {reading.decode()}"
        self._image_keys = EmbeddingKeys(manifest, preparing, TEXT_ENCODER, VISION_ENCODER)

    def make_text_tensors(self, texts: Sequence[TokenizedText]) -> Mapping[str, Tensor]:
        """See Encoder."""
        return {**self._texts.to_tensors(texts), **without_images(self._image_spec, len(texts))}

    def make_image_tensors(self, image: PreparedImage) -> tuple[Mapping[str, Tensor], TokenizedText | None]:
        """See Encoder."""
        assert isinstance(self._texts, PageTextProcessor)  # only with pages there are images
        page = self._texts.tokenize_page(image.tokens or 0)
        return {**self._texts.to_tensors([page]), **pack_images([image], self.image_spec)}, page

    def make_document_key(self, text: str) -> bytes:
        """Return what only documents of the same characters have in common."""
        return self._document_keys.make(text.encode())

    def read(
        self, model_name: str, response: InferResponse, texts: Sequence[TokenizedText | None]
    ) -> tuple[Sequence[Vector], Mapping[int, InvalidOutputError]]:
        """See Encoder: of each text or page the vectors that count, float16, (tokens, D)."""
        known = [text for text in texts if text is not None]
        tensor = response.outputs.get(TOKEN_EMBEDDINGS)
        length = tensor.shape[2] if tensor is not None and tensor.ndim == _RANK else 0
        longest = max(len(text.ids) for text in known)
        shape = (len(known), 1, max(length, longest), self.embedding_dim)
        rows = read_output(response, TOKEN_EMBEDDINGS, shape, np.float16)
        vectors = [
            row[0, : len(text.ids)][self._texts.find_counted(text)] for row, text in zip(rows, known, strict=True)
        ]
        return vectors, find_invalid(model_name, {TOKEN_EMBEDDINGS: rows}, self.manifest)

    def read_entry(self, key: bytes, entry: bytes | None) -> CachedEmbedding | None:
        """See Encoder."""
        return read_token_vectors(key, entry, self.embedding_dim)

    def write_entry(self, key: bytes, embedding: CachedEmbedding) -> bytes:
        """See Encoder."""
        return write_token_vectors(key, embedding)


class LateInteraction(DualEncoder):
    """The calls to one model.

    Args:
        manifest: The manifest of the model.
        text_processor: Turns texts into tensors; it has the model's tokenizer.
        image_spec: How to prepare images; None for a model that reads none.
        cache: Keeps the documents' vectors. None keeps nothing.
    """

    in_one_row = True

    def __init__(
        self,
        manifest: Manifest,
        text_processor: TokenTextProcessor,
        image_spec: ImageSpec | None,
        cache: EmbeddingCache | None = None,
    ) -> None:
        assert manifest.late_interaction is not None
        self._manifest = manifest
        self._late: AnyLateInteractionSpec = manifest.late_interaction
        self._text_processor = text_processor
        used = cache if can_cache(manifest) else None
        self._encoder: TokenEncoder = TokenEncoder(manifest, text_processor, image_spec, used)

    def make_head_tensors(self, query: Vector, documents: Mapping[str, Sequence[Vector]]) -> dict[str, Tensor]:
        """See DualEncoder. The vectors of all documents lie in one row, the shorter ones padded."""
        ((_, vectors),) = documents.items()
        return {QUERY_EMBEDDINGS: query[None], DOCUMENT_EMBEDDINGS: pack(vectors)[None]}

    async def send_to_head(
        self, scoring: Scoring, modality: Modality, documents: Mapping[int, Sequence[CachedEmbedding]]
    ) -> None:
        """See DualEncoder."""
        counts = {index: len(parts[0].vector) for index, parts in documents.items()}
        for group in group_by_length(counts, self._late.max_documents):
            await scoring.send_in_turn(HEAD, modality, group)

    def check_images(self, what: str, value: Input) -> None:
        """Refuse images, but for one that is a document, where the model reads pages.

        Raises:
            InvalidInputError: The query has an image, or the document has one that is not read.
        """
        reads_pages = what == "document" and isinstance(self._late, PageInteractionSpec)
        check_modality(what, modality_of(value), ("text", "image") if reads_pages else ("text",), self._manifest)
        if len(images_of(value)) > 1:
            raise InvalidInputError(
                f"the document has {len(images_of(value))} images, {self._manifest.model_id} reads one as a page; send "
                "each as a document of its own"
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
        """See DualEncoder. What the cache has is not tokenized; it is looked up while the query is encoded."""
        images = {index: image for index in valid if (image := image_of(documents[index])) is not None}
        texts = {index: text_of(documents[index]) or "" for index in valid if index not in images}
        keys: dict[int, Key] = {}

        async def note(index: int, key: Key) -> None:
            keys[index] = key
            encoding.add_image(images[index], key)

        naming = self._name_images(images, scoring)
        await naming.begin()
        if self._encoder.cache is None:
            await naming.for_each(note)
            await encoding.begin_images()
        names: dict[int, bytes] = {}
        unread = query
        if self._encoder.cache is not None and len(valid) > MAX_COMPANIONS:  # the query would travel alone anyway
            self._add_query(query, await self._tokenize_all(query, instruction, []), scoring, encoding)
            await encoding.send_query_text()
            unread = None
        if self._encoder.cache is not None:
            names = {index: self._encoder.make_document_key(text) for index, text in texts.items()}
            await encoding.look_up(list(dict.fromkeys(names.values())))
        missing = [index for index in texts if names.get(index) not in encoding.embeddings]
        tokenized = await self._tokenize_all(unread, instruction, [texts[index] for index in missing])
        self._add_query(unread, tokenized, scoring, encoding)
        keys.update(names)
        for index, text in zip(missing, tokenized[1], strict=True):
            scoring.tokens[index] = text
            keys[index] = encoding.add_text(text, names.get(index))
        await naming.for_each(note)
        return {index: {TOKEN_EMBEDDINGS: key} for index, key in keys.items()}

    @staticmethod
    def _add_query(query: Input | None, tokenized: Tokenized, scoring: Scoring, encoding: Encoding) -> None:
        """Take the query, if there is one to be encoded."""
        text = tokenized[0]
        if query is not None and text is not None:
            scoring.outcome.query = QueryReading(modality_of(query), text.truncated, len(text.ids))
            encoding.add_query_text(text)

    async def _tokenize_all(self, query: Input | None, instruction: str | None, texts: Sequence[str]) -> Tokenized:
        """Return the query's tokens and the documents', tokenized in a thread if they are long."""
        tokenize = partial(self._tokenize, query, instruction, texts)
        characters = sum(map(len, texts)) + (0 if query is None else len(text_of(query) or ""))
        if characters > MAX_INLINE_CHARACTERS:
            return await in_thread(tokenize, name=TOKENIZE)
        with await Stage(TOKENIZE):
            return tokenize()

    async def probe(self, model_name: str) -> None:
        """See Pipeline."""
        late, dim = self._late, self._encoder.embedding_dim
        if model_name in self._encoder.outputs:
            tensors: Mapping[str, Tensor]
            if model_name == TEXT_ENCODER:
                texts = self._text_processor.tokenize_documents([PROBE_TEXT])
                tensors = self._encoder.make_text_tensors(texts)
            else:
                image = await in_thread(partial(make_probe_image().prepare, self._encoder.image_spec))
                tensors, page = self._encoder.make_image_tensors(image)
                assert page is not None
                texts = [page]
            request = InferRequest(model_name, tensors, (TOKEN_EMBEDDINGS,), model_version=self._manifest.model_version)
            _, errors = self._encoder.read(model_name, await Wait(await Send(request)), texts)
        elif model_name == HEAD:
            vectors = np.full((late.query_tokens, dim), dim**-0.5, np.float16)
            tensors = self.make_head_tensors(vectors[None], {TOKEN_EMBEDDINGS: [vectors[:1]]})
            request = InferRequest(model_name, tensors, SCORE_OUTPUTS, model_version=self._manifest.model_version)
            response = await Wait(await Send(request))
            scores = {name: read_output(response, name, (1, 1)) for name in SCORE_OUTPUTS}
            errors = find_invalid(model_name, scores, self._manifest)
        else:
            raise ContractError(
                f"the server's manifest names a model {model_name}; expected {HEAD}, {TEXT_ENCODER} or {IMAGE_ENCODER}"
            )
        for error in errors.values():
            raise error


def pack(documents: Sequence[Vector]) -> Vector:
    """Return the documents' vectors as one read-only array, (documents, tokens, D), in their own type.

    A shorter document is padded with its first vector: what is there twice changes no maximum.
    """
    longest = max(map(len, documents))
    pieces: list[memoryview | bytes] = []
    for vectors in documents:
        pieces += (vectors.data, vectors[0].tobytes() * (longest - len(vectors)))
    packed = np.frombuffer(b"".join(pieces), documents[0].dtype)
    return packed.reshape(len(documents), longest, -1)


def group_by_length(counts: Mapping[int, int], most: int) -> Iterator[list[int]]:
    """Yield all indexes in groups of one request each, those of like length together, so that little is padded.

    Args:
        counts: How many vectors each document has, by index.
        most: The most documents of a request.
    """
    group: list[int] = []
    for index in sorted(counts, key=counts.__getitem__):
        if group and (len(group) == most or (len(group) + 1) * counts[index] > VECTORS_PER_REQUEST):
            yield group
            group = []
        group.append(index)
    if group:
        yield group
