"""What all pipelines share: the requests of one call that score documents, and what became of each document."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from lychee_client._errors import ContractError, InferenceError, InvalidInputError, LycheeError, RequestRejectedError
from lychee_client._image import Image, PreparedImage
from lychee_client._manifest import Manifest
from lychee_client._pipelines.lanes import LANES, Lane
from lychee_client._plan import Handle, Plan, send, wait
from lychee_client._text import TokenizedText, check_text
from lychee_client._transports.base import InferRequest, InferResponse, Tensor
from lychee_client._types import ImageText, Input, Modality, Text, Timings, text_of

# Images that may be preprocessed before their turn to be sent: keeps the cores busy and the memory bounded.
IMAGES_AHEAD: Final = 8
# Errors that one document's tensors can cause; every other error concerns the whole call.
_DOCUMENT_ERRORS: Final = (InvalidInputError, RequestRejectedError, InferenceError)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Score:
    """One document's score, and what the model read of the document."""

    relevance_score: float
    logit: float
    modality: Modality
    tokens: TokenizedText | None
    image: PreparedImage | None


@dataclass(slots=True)
class Outcome:
    """What became of each document.

    Attributes:
        scores: By index, in any order.
        errors: By index, in any order. Every index is in exactly one of the two.
        timings: Of the call.
    """

    scores: dict[int, Score] = field(default_factory=dict)
    errors: dict[int, LycheeError] = field(default_factory=dict)
    timings: Timings = field(default_factory=Timings)

    def fail(self, index: int, error: LycheeError) -> None:
        """Note what is wrong with a document."""
        if isinstance(error, InvalidInputError):
            error.index = index
        self.errors[index] = error


class Pipeline(Protocol):
    """Plans for one model."""

    def rerank(
        self,
        query: Input,
        documents: Sequence[Input],
        instruction: str | None = None,
        lane: Lane = LANES["interactive"],
    ) -> Plan[Outcome]:
        """Score every document.

        Args:
            query: Has passed `check_input`.
            documents: Anything; what does not pass `check_input` becomes an error entry.
            instruction: For a model that reads one; otherwise None.
            lane: How much of the server the call may take.

        Raises:
            InvalidInputError: The query cannot be used.
            ContractError: A response has another shape than the contract's, is not finite or is out of range.
            LycheeError: The server cannot serve the call.
        """


class Scoring:
    """The requests of one call that score documents.

    Args:
        manifest: Of the model.
        lane: How much of the server the call may take.
        make_text_tensors: Makes the request for these documents, which have a text and no image.

    Attributes:
        lane: The same.
        outcome: What is known so far.
        tokens: By index, of the documents that have a text, or are read with one.
        images: By index, of the documents that have an image, once it is sent.
        modalities: By index, of the documents that were sent.
    """

    def __init__(
        self, manifest: Manifest, lane: Lane, make_text_tensors: Callable[[Sequence[int]], Mapping[str, Tensor]]
    ) -> None:
        self.lane = lane
        self.outcome = Outcome()
        self.tokens: dict[int, TokenizedText] = {}
        self.images: dict[int, PreparedImage] = {}
        self.modalities: dict[int, Modality] = {}
        self._max_batch_size = manifest.max_batch_size
        self._make_text_tensors = make_text_tensors
        self._sent: deque[tuple[Handle[InferResponse], str, Sequence[int]]] = deque()

    def check_documents(self, documents: Sequence[object]) -> list[int]:
        """Return the indexes of those that pass `check_input`; note what is wrong with the others."""
        for index, document in enumerate(documents):
            try:
                check_input(document)
            except InvalidInputError as error:
                self.outcome.fail(index, error)
        return [index for index in range(len(documents)) if index not in self.outcome.errors]

    def send_texts(self, model_name: str, indexes: Sequence[int]) -> Plan[None]:
        """Send documents without images, grouped by bucket, as many in one request as the lane allows."""
        by_bucket: dict[int, list[int]] = {}
        for index in indexes:
            by_bucket.setdefault(self.tokens[index].bucket, []).append(index)
        for bucket, members in sorted(by_bucket.items()):
            size = self._find_max_batch_size(model_name)
            if self.lane.max_tokens is not None:
                size = min(size, max(1, self.lane.max_tokens // bucket))
            for start in range(0, len(members), size):
                group = members[start : start + size]
                yield from self.send(model_name, "text", self._make_text_tensors(group), group)

    def send(
        self, model_name: str, modality: Modality, tensors: Mapping[str, Tensor], indexes: Sequence[int]
    ) -> Plan[None]:
        """Send documents of one modality, one row each."""
        self.modalities.update(dict.fromkeys(indexes, modality))
        request = InferRequest(model_name, tensors, ("relevance_score", "logits"), self.lane.priority)
        self._sent.append(((yield from send(request, self.lane.max_rows_in_flight)), model_name, indexes))

    def read(self) -> Plan[None]:
        """Wait for every answer. A batch that fails is sent again row by row, so that only the bad row fails."""
        while self._sent:
            handle, model_name, indexes = self._sent.popleft()
            try:
                response = yield from wait(handle)
            except _DOCUMENT_ERRORS as error:
                if len(indexes) == 1:
                    self.outcome.fail(indexes[0], error)
                for index in indexes if len(indexes) > 1 else []:
                    yield from self.send(model_name, "text", self._make_text_tensors([index]), [index])
                continue
            scores, logits = (
                read_output(response, name, (len(indexes), 1))[:, 0] for name in ("relevance_score", "logits")
            )
            if scores.min() < 0 or scores.max() > 1:
                raise ContractError(
                    f"{model_name} answered scores from {scores.min()} to {scores.max()}, expected 0 to 1; "
                    "run `lychee doctor`",
                    model_name=model_name,
                )
            for index, score, logit in zip(indexes, scores.tolist(), logits.tolist(), strict=True):
                tokens, image = self.tokens.get(index), self.images.get(index)
                self.outcome.scores[index] = Score(score, logit, self.modalities[index], tokens, image)

    def _find_max_batch_size(self, model_name: str) -> int:
        if model_name not in self._max_batch_size:
            raise ContractError(f"the server's manifest has no max_batch_size.{model_name}; export the model again")
        return self._max_batch_size[model_name]


class Preparation(Generic[T]):
    """Images of documents, prepared a few at a time while earlier ones are sent.

    Args:
        indexes: Of the documents that have an image.
        begin: Begins the work for one document; it may have the outcome at once.
        outcome: Where the error of an image goes.
    """

    def __init__(self, indexes: Sequence[int], begin: Callable[[int], Plan[Handle[T] | T]], outcome: Outcome) -> None:
        self._waiting = deque(indexes)
        self._begun: deque[tuple[int, Handle[T] | T]] = deque()
        self._begin = begin
        self._outcome = outcome

    def begin(self) -> Plan[None]:
        """Begin the work for as many images as may be under way."""
        while self._waiting and len(self._begun) < IMAGES_AHEAD:
            index = self._waiting.popleft()
            self._begun.append((index, (yield from self._begin(index))))

    def for_each(self, use: Callable[[int, T], Plan[None]]) -> Plan[None]:
        """Wait for each image in turn, and use it."""
        yield from self.begin()
        while self._begun:
            index, prepared = self._begun.popleft()
            try:
                ready = (yield from wait(prepared)) if isinstance(prepared, Handle) else prepared
                yield from use(index, ready)
            except InvalidInputError as error:
                self._outcome.fail(index, error)
            yield from self.begin()


def check_input(value: object) -> None:
    """Refuse a query or document whose type or text cannot be ranked. Images are checked when they are decoded.

    Raises:
        InvalidInputError: Another type, or a text without content.
    """
    if not isinstance(value, (str, Text, Image, ImageText)):
        raise InvalidInputError(
            f"got a {type(value).__name__}, expected str, Text, Image or ImageText; "
            "a file is Image.from_path(...), its bytes are Image.from_bytes(...)"
        )
    if isinstance(value, ImageText) and not isinstance(value.image, Image):
        raise InvalidInputError(f"the image of an ImageText is a {type(value.image).__name__}, expected an Image")
    if not isinstance(value, Image):
        check_text(text_of(value))


def read_output(response: InferResponse, name: str, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Return a float32 tensor of this shape.

    Raises:
        ContractError: The server answered another, or none, or values that are not finite.
    """
    tensor = response.outputs.get(name)
    if tensor is None or tensor.dtype != np.float32 or tensor.shape != shape:
        got = "nothing" if tensor is None else f"{tensor.dtype} {tensor.shape}"
        raise ContractError(
            f"the server answered {got} as {name}, expected float32 {shape}; client and server do not fit together, "
            "run `lychee doctor`"
        )
    if not np.isfinite(tensor).all():
        raise ContractError(f"the server answered {name} with values that are not finite; run `lychee doctor`")
    return tensor
