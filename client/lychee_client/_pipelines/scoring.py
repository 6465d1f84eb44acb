"""What all pipelines share: the requests of one call that score documents, and what became of each document."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from lychee_client._errors import ContractError, InvalidInputError, InvalidOutputError, LycheeError
from lychee_client._operations import Handle, Wait
from lychee_client._pipelines.batches import Batches
from lychee_client._pipelines.lanes import LANES, Lane
from lychee_client.manifest.manifest import Manifest
from lychee_client.manifest.prompt_spec import Modality
from lychee_client.preprocessing.image import Image, ImageSizes
from lychee_client.preprocessing.text import TokenizedText, check_text
from lychee_client.preprocessing.windows import Room
from lychee_client.transports.base import InferResponse, Tensor
from lychee_client.types import CacheUse, Chunk, Images, ImageText, Input, QueryReading, Text, Timings, text_of

# Images that may be preprocessed before their turn to be sent: keeps the cores busy and the memory bounded.
IMAGES_AHEAD: Final = 8
RELEVANCE_SCORE: Final = "relevance_score"
SCORE_OUTPUTS: Final = (RELEVANCE_SCORE, "logits")

_DATA_URL: Final = "data:image/"

K = TypeVar("K")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Score:
    """One document's score, and what the model read of the document.

    Attributes:
        relevance_score: The score, in [0, 1].
        logit: The score before the sigmoid.
        modality: The kind of document.
        tokens: The text as the model read it; None without one.
        image: The sizes of the first image; None without one.
        chunk: The part of the text that was read; None where it was read from its beginning.
    """

    relevance_score: float
    logit: float
    modality: Modality
    tokens: TokenizedText | None
    image: ImageSizes | None
    chunk: Chunk | None = None

    @property
    def token_count(self) -> int:
        """How many tokens were read for it."""
        return 0 if self.tokens is None else len(self.tokens.ids)


@dataclass(slots=True)
class Outcome:
    """What became of each document.

    Attributes:
        scores: The scores by index, in any order.
        errors: The errors by index, in any order. Every index is in exactly one of `scores` and `errors`.
        timings: Where the time of the call went.
        embedding_cache: What the embedding cache saved; None where none is used.
        query: What the model read of the query; None where nothing was sent.
        unscored_tokens: How many tokens were read besides, as parts of documents that others of their parts outdid.
        query_embedding: What Encoding.query_embedding gave; None for a cross-encoder, and where nothing was sent.
    """

    scores: dict[int, Score] = field(default_factory=dict)
    errors: dict[int, LycheeError] = field(default_factory=dict)
    timings: Timings = field(default_factory=Timings)
    embedding_cache: CacheUse | None = None
    query: QueryReading | None = None
    unscored_tokens: int = 0
    query_embedding: npt.NDArray[Any] | None = None

    @property
    def tokens_read(self) -> int:
        """How many tokens the query and the documents have, all their parts counted."""
        query = 0 if self.query is None else self.query.tokens or 0
        return query + self.unscored_tokens + sum(score.token_count for score in self.scores.values())

    def fail(self, index: int, error: LycheeError) -> None:
        """Note what is wrong with a document."""
        if isinstance(error, (InvalidInputError, InvalidOutputError)):
            error.index = index
        self.errors[index] = error


PROBE_TEXT: Final = "a"


def make_probe_image() -> Image:
    """Return an image that costs little."""
    return Image.from_numpy(np.zeros((32, 32, 3), np.uint8))


class Pipeline(Protocol):
    """The calls to one model."""

    async def rerank(
        self,
        query: Input,
        documents: Sequence[Input],
        instruction: str | None = None,
        lane: Lane = LANES["interactive"],
        earlier: Outcome | None = None,
    ) -> Outcome:
        """Score every document.

        Args:
            query: The query; it has passed `check_input`.
            documents: The documents, of any type; what does not pass `check_input` becomes an error entry.
            instruction: The instruction, for a model that reads one; otherwise None.
            lane: How much of the server the call may take.
            earlier: What became of other documents of the same query, whose embedding is taken from there.

        Raises:
            InvalidInputError: The query cannot be used.
            InvalidOutputError: The model gave no number for the query.
            ContractError: A response has another shape than the contract's.
            LycheeError: The server cannot serve the call.
        """

    def find_tokens(self, text: str) -> Sequence[int]:
        """Return where each token of a text begins, in characters, without special tokens and what stands around it."""

    def find_room(self, query: Input, instruction: str | None) -> Room:
        """Return how much of its documents' texts the model reads beside a query. To be called in a thread.

        Raises:
            InvalidInputError: The query cannot be used.
        """

    async def probe(self, model_name: str) -> None:
        """Have one of the manifest's `asked_models` compute the smallest thing that it can.

        Raises:
            LycheeError: It does not answer, or not what it should.
        """


class Scoring:
    """The requests of one call that score documents.

    Args:
        manifest: The manifest of the model.
        lane: How much of the server the call may take.
        make_tensors: Makes the tensors of a request for the documents at the given indexes.
        in_one_row: Whether the documents of a request lie in one row, beside their query, instead of in one each.

    Attributes:
        outcome: What is known so far.
        tokens: The tokens of each document that has a text, or is read with one, by index.
        images: The image sizes of each document that has an image, by index, once the image is sent.
        modalities: The modality of each document that was sent, by index.
    """

    def __init__(
        self,
        manifest: Manifest,
        lane: Lane,
        make_tensors: Callable[[Sequence[int]], Mapping[str, Tensor]],
        *,
        in_one_row: bool = False,
    ) -> None:
        self.outcome = Outcome()
        self._in_one_row = in_one_row
        self.tokens: dict[int, TokenizedText] = {}
        self.images: dict[int, ImageSizes] = {}
        self.modalities: dict[int, Modality] = {}
        self._manifest = manifest
        self._batches = Batches(manifest, lane, make_tensors, self._use, self.outcome.fail)

    def check_documents(self, documents: Sequence[Input], check: Callable[[Input], None]) -> list[int]:
        """Return the indexes of the documents that pass `check_input` and `check`; note what is wrong with others."""
        for index, document in enumerate(documents):
            try:
                check_input(document)
                check(document)
            except InvalidInputError as error:
                self.outcome.fail(index, error)
        return [index for index in range(len(documents)) if index not in self.outcome.errors]

    async def send_texts(self, model_name: str, indexes: Sequence[int]) -> None:
        """Send documents without images in batches."""
        await self.send_batches(model_name, "text", {index: self.tokens[index].bucket for index in indexes})

    async def send_batches(self, model_name: str, modality: Modality, lengths: Mapping[int, int]) -> None:
        """Send documents of one modality, grouped by their length in tokens."""
        self.modalities.update(dict.fromkeys(lengths, modality))
        await self._batches.send_batches(model_name, SCORE_OUTPUTS, lengths)

    async def send_in_turn(self, model_name: str, modality: Modality, indexes: Sequence[int]) -> None:
        """Send documents of one modality together; see Batches."""
        self.modalities.update(dict.fromkeys(indexes, modality))
        await self._batches.send_in_turn(model_name, SCORE_OUTPUTS, indexes)

    async def send(
        self, model_name: str, modality: Modality, tensors: Mapping[str, Tensor], indexes: Sequence[int]
    ) -> None:
        """Send documents of one modality, one row each."""
        self.modalities.update(dict.fromkeys(indexes, modality))
        await self._batches.send(model_name, SCORE_OUTPUTS, tensors, indexes)

    async def read(self) -> None:
        """Wait for every answer; see Batches.read."""
        await self._batches.read()

    def _use(self, model_name: str, response: InferResponse, indexes: Sequence[int]) -> None:
        shape = (1, len(indexes)) if self._in_one_row else (len(indexes), 1)
        rows = {name: read_output(response, name, shape).reshape(-1, 1) for name in SCORE_OUTPUTS}
        errors = find_invalid(model_name, rows, self._manifest)
        scores, logits = (rows[name][:, 0].tolist() for name in SCORE_OUTPUTS)
        for row, (index, score, logit) in enumerate(zip(indexes, scores, logits, strict=True)):
            if row in errors:
                self.outcome.fail(index, errors[row])
                continue
            tokens, image = self.tokens.get(index), self.images.get(index)
            self.outcome.scores[index] = Score(score, logit, self.modalities[index], tokens, image)


class Preparation(Generic[K, T]):
    """Images, prepared a few at a time while earlier ones are used.

    Args:
        keys: The keys of the images.
        begin: Begins the work for one image; it may return the outcome at once.
        fail: Called with an image's key, and what is wrong with it.
    """

    def __init__(
        self,
        keys: Sequence[K],
        begin: Callable[[K], Awaitable[Handle[T] | T]],
        fail: Callable[[K, InvalidInputError], None],
    ) -> None:
        self._waiting = deque(keys)
        self._begun: deque[tuple[K, Handle[T] | T]] = deque()
        self._begin = begin
        self._fail = fail

    async def begin(self) -> None:
        """Begin the work for as many images as may be under way."""
        while self._waiting and len(self._begun) < IMAGES_AHEAD:
            key = self._waiting.popleft()
            self._begun.append((key, (await self._begin(key))))

    @property
    def is_left(self) -> bool:
        """Whether an image has not been used."""
        return bool(self._begun or self._waiting)

    async def for_each(self, use: Callable[[K, T], Awaitable[None]]) -> None:
        """Wait for each image in turn, and use it."""
        while self.is_left:
            await self.use_next(use)

    async def use_next(self, use: Callable[[K, T], Awaitable[None]]) -> None:
        """Wait for the next image, and use it."""
        await self.begin()
        key, prepared = self._begun.popleft()
        try:
            ready = (await Wait(prepared)) if isinstance(prepared, Handle) else prepared
            await use(key, ready)
        except InvalidInputError as error:
            self._fail(key, error)
        await self.begin()


def check_input(value: object) -> None:
    """Refuse a query or document whose type or text cannot be ranked. Images are checked when they are decoded.

    Raises:
        InvalidInputError: The input has another type, or its text has no content.
    """
    if not isinstance(value, (str, Text, Image, Images, ImageText)):
        raise InvalidInputError(
            f"got a {type(value).__name__}, expected str, Text, Image, Images or ImageText; "
            "a file is Image.from_path(...), its bytes are Image.from_bytes(...)"
        )
    image = value.image if isinstance(value, ImageText) else value
    if isinstance(value, ImageText) and not isinstance(image, (Image, Images)):
        raise InvalidInputError(f"the image of an ImageText is a {type(image).__name__}, expected an Image or Images")
    if isinstance(image, Images):
        wrong = [type(each).__name__ for each in image.images if not isinstance(each, Image)]
        if wrong or not image.images:
            raise InvalidInputError(
                f"Images holds {f'a {wrong[0]}' if wrong else 'nothing'}, expected only Image, one or more"
            )
    if not isinstance(value, (Image, Images)):
        check_text(text_of(value))


def find_image_texts(query: object, documents: Sequence[object]) -> list[str]:
    """Return warnings of texts that are images in disguise: data URLs, of which the model would read the letters."""

    def is_data_url(value: object) -> bool:
        text = value if isinstance(value, str) else value.text if isinstance(value, (Text, ImageText)) else None
        return isinstance(text, str) and text[:100].lstrip()[: len(_DATA_URL)].lower() == _DATA_URL

    count = sum(map(is_data_url, documents))
    found = [*(["the query"] if is_data_url(query) else []), *([f"{count} of the documents"] if count else [])]
    return [
        f"the text of {what} is the data URL of an image, and ranked by its characters; send it as an image instead: "
        '{"image": ...}, or Image.from_bytes in Python'
        for what in found
    ]


def read_output(
    response: InferResponse, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32
) -> npt.NDArray[Any]:
    """Return a tensor of this shape and type, whatever its values; see `find_invalid`.

    Raises:
        ContractError: The server answered with another shape, or without this tensor.
    """
    tensor = response.outputs.get(name)
    if tensor is None or tensor.dtype != dtype or tensor.shape != shape:
        got = "nothing" if tensor is None else f"{tensor.dtype} {tensor.shape}"
        raise ContractError(
            f"the server answered {got} as {name}, expected {np.dtype(dtype)} {shape}; client and server do not "
            "fit together, run `lychee doctor`"
        )
    return tensor


def find_invalid(
    model_name: str, outputs: Mapping[str, npt.NDArray[Any]], manifest: Manifest
) -> dict[int, InvalidOutputError]:
    """Return what is wrong with what a model computed, by row; rows that are good are left out.

    Args:
        model_name: The name of the model.
        outputs: Its outputs by name, (batch_size, ...) each.
        manifest: The manifest of the model.
    """
    errors: dict[int, InvalidOutputError] = {}
    for name, rows in outputs.items():
        is_score = name == RELEVANCE_SCORE
        bad = ~((rows >= 0) & (rows <= 1) if is_score else np.isfinite(rows))
        for row in np.flatnonzero(bad.reshape(len(rows), -1).any(axis=1)).tolist():
            value = str(rows[row][bad[row]][0]).replace("nan", "NaN")
            errors[row] = InvalidOutputError(
                f"{model_name} of {manifest.model_id} in {manifest.identity.precision_text} gave {value} as {name}, "
                f"expected {'0 to 1' if is_score else 'finite numbers'}: its numbers overflow in this precision, or "
                "its file is damaged; run `lychee doctor`, and if it finds nothing, export another precision",
                model_name=model_name,
            )
    return errors
