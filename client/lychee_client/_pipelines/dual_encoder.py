"""Request plan of the dual encoders: encode the query once, score the documents against it. DESIGN.md, section 3.1."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from lychee_client._errors import ContractError, InferenceError, InvalidInputError, LycheeError, RequestRejectedError
from lychee_client._image import Image, PreparedImage
from lychee_client._manifest import Manifest
from lychee_client._pipelines.lanes import LANES, Lane
from lychee_client._plan import Handle, Plan, run, send, wait
from lychee_client._text import TextProcessor, TokenizedText, check_text
from lychee_client._transports.base import InferRequest, InferResponse, Tensor
from lychee_client._types import ImageText, Input, Modality, Text, Timings, image_of, modality_of, text_of

TEXT_ENCODER: Final = "text_encoder"
VISION_ENCODER: Final = "vision_encoder"
ENSEMBLES: Final[dict[Modality, str]] = {
    "text": "rerank_text",
    "image": "rerank_image",
    "image_text": "rerank_image_text",
}
# Images that may be preprocessed before their turn to be sent: keeps the cores busy and the memory bounded.
IMAGES_AHEAD: Final = 8
# Errors that one document's tensors can cause; every other error concerns the whole call.
_DOCUMENT_ERRORS: Final = (InvalidInputError, RequestRejectedError, InferenceError)

Embedding = npt.NDArray[np.float32]


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


class DualEncoder:
    """Plans for one model.

    Args:
        manifest: Of the model.
        text_processor: Made from the model's tokenizer.
    """

    def __init__(self, manifest: Manifest, text_processor: TextProcessor) -> None:
        self._manifest = manifest
        self._text_processor = text_processor

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
            InvalidInputError: The query's image cannot be used.
            ContractError: A response has another shape than the contract's, is not finite or is out of range.
            LycheeError: The server cannot serve the call.
        """
        started = time.perf_counter()
        call = _Call(lane)
        for index, document in enumerate(documents):
            try:
                check_input(document)
            except InvalidInputError as error:
                call.fail(index, error)
        valid = {index: document for index, document in enumerate(documents) if index not in call.outcome.errors}

        if not valid:
            return call.outcome
        query_requests = yield from self._send_query(query, instruction, lane)
        texts = {index: text for index, document in valid.items() if (text := text_of(document)) is not None}
        tokenizing = yield from run(partial(self._text_processor.tokenize_documents, list(texts.values())))
        pictured = deque((index, image) for index, document in valid.items() if (image := image_of(document)))
        preparing: deque[tuple[int, Handle[PreparedImage] | PreparedImage]] = deque()
        for _ in range(min(IMAGES_AHEAD, len(pictured))):
            preparing.append((yield from self._prepare_image(*pictured.popleft())))
        call.tokens = dict(zip(texts, (yield from wait(tokenizing)), strict=True))
        preprocessed = time.perf_counter()

        embedding = yield from self._read_query(query_requests)
        encoded = time.perf_counter()
        for indexes in self._group_texts(call, valid):
            yield from self._send_texts(call, embedding, indexes)
        while preparing:
            index, prepared = preparing.popleft()
            try:
                ready = (yield from wait(prepared)) if isinstance(prepared, Handle) else prepared
            except InvalidInputError as error:
                call.fail(index, error)
            else:
                preprocessed = time.perf_counter()
                yield from self._send_image(call, embedding, index, ready)
            if pictured:
                preparing.append((yield from self._prepare_image(*pictured.popleft())))

        yield from self._read_scores(call, embedding, valid)
        finished = time.perf_counter()
        call.outcome.timings = Timings(
            total_ms=1e3 * (finished - started),
            preprocess_ms=1e3 * (preprocessed - started),
            encode_query_ms=1e3 * (encoded - started),
            score_documents_ms=1e3 * (finished - encoded),
        )
        return call.outcome

    def _send_query(
        self, query: Input, instruction: str | None, lane: Lane
    ) -> Plan[list[tuple[Handle[InferResponse], str]]]:
        requests = []
        text, image = text_of(query), image_of(query)
        if text is not None:
            prefix = None
            if instruction is not None and self._manifest.instruction is not None:
                prefix = self._manifest.instruction.query_prefix.replace("{instruction}", instruction)
            tensors = self._text_processor.to_tensors([self._text_processor.tokenize_query(text, prefix)])
            request = InferRequest(TEXT_ENCODER, tensors, ("text_embedding",), lane.priority)
            requests.append(((yield from send(request, lane.max_rows_in_flight)), "text_embedding"))
        if image is not None:
            preparing = yield from run(partial(image.prepare, self._manifest.image))
            pixel_values = (yield from wait(preparing)).pixel_values[None]
            request = InferRequest(VISION_ENCODER, {"pixel_values": pixel_values}, ("image_embedding",), lane.priority)
            requests.append(((yield from send(request, lane.max_rows_in_flight)), "image_embedding"))
        return requests

    def _read_query(self, requests: list[tuple[Handle[InferResponse], str]]) -> Plan[Embedding]:
        """Return float32, (1, D); the embeddings of text and image together are their normalized sum."""
        embeddings = []
        for handle, output in requests:
            response = yield from wait(handle)
            embeddings.append(_read_output(response, output, (1, self._manifest.embedding_dim)))
        if len(embeddings) == 1:
            return embeddings[0]
        total = embeddings[0] + embeddings[1]
        normalized: Embedding = total / np.maximum(np.linalg.norm(total), np.float32(1e-12))
        return normalized

    def _prepare_image(self, index: int, image: Image) -> Plan[tuple[int, Handle[PreparedImage] | PreparedImage]]:
        prepared = image.cached(self._manifest.image)
        if prepared is not None:
            return index, prepared
        return index, (yield from run(partial(image.prepare, self._manifest.image)))

    def _group_texts(self, call: _Call, documents: dict[int, Input]) -> list[list[int]]:
        """Return the indexes of text documents, grouped by bucket, each group small enough for one request."""
        by_bucket: dict[int, list[int]] = {}
        for index, tokens in call.tokens.items():
            if modality_of(documents[index]) == "text":
                by_bucket.setdefault(tokens.bucket, []).append(index)
        groups = []
        for bucket, indexes in sorted(by_bucket.items()):
            size = self._max_batch_size(ENSEMBLES["text"])
            if call.lane.max_tokens is not None:
                size = min(size, max(1, call.lane.max_tokens // bucket))
            groups += [indexes[start : start + size] for start in range(0, len(indexes), size)]
        return groups

    def _send_texts(self, call: _Call, embedding: Embedding, indexes: list[int]) -> Plan[None]:
        tensors = self._text_processor.to_tensors([call.tokens[index] for index in indexes])
        queries = np.repeat(embedding, len(indexes), axis=0)  # (batch_size, D)
        yield from self._send_documents(call, "text", {"query_embedding": queries, **tensors}, indexes)

    def _send_image(self, call: _Call, embedding: Embedding, index: int, image: PreparedImage) -> Plan[None]:
        """Send one image, with its text if it has one, alone: the server merges, and its cache is by request."""
        call.images[index] = image
        tensors: dict[str, Tensor] = {"query_embedding": embedding, "pixel_values": image.pixel_values[None]}
        modality: Modality = "image"
        if index in call.tokens:
            tensors |= self._text_processor.to_tensors([call.tokens[index]])
            modality = "image_text"
        yield from self._send_documents(call, modality, tensors, [index])

    def _send_documents(
        self, call: _Call, modality: Modality, tensors: dict[str, Tensor], indexes: list[int]
    ) -> Plan[None]:
        request = InferRequest(ENSEMBLES[modality], tensors, ("relevance_score", "logits"), call.lane.priority)
        handle = yield from send(request, call.lane.max_rows_in_flight)
        call.sent.append((handle, modality, indexes))

    def _read_scores(self, call: _Call, embedding: Embedding, documents: dict[int, Input]) -> Plan[None]:
        """Wait for every answer. A batch that fails is sent again row by row, so that only the bad row fails."""
        while call.sent:
            handle, modality, indexes = call.sent.popleft()
            try:
                response = yield from wait(handle)
            except _DOCUMENT_ERRORS as error:
                if len(indexes) == 1:
                    call.fail(indexes[0], error)
                for index in indexes if len(indexes) > 1 else []:
                    yield from self._send_texts(call, embedding, [index])
                continue
            scores, logits = (
                _read_output(response, name, (len(indexes), 1))[:, 0] for name in ("relevance_score", "logits")
            )
            if scores.min() < 0 or scores.max() > 1:
                raise ContractError(
                    f"{ENSEMBLES[modality]} answered scores from {scores.min()} to {scores.max()}, expected 0 to 1; "
                    "run `lychee doctor`",
                    model_name=ENSEMBLES[modality],
                )
            for index, score, logit in zip(indexes, scores.tolist(), logits.tolist(), strict=True):
                tokens, image = call.tokens.get(index), call.images.get(index)
                call.outcome.scores[index] = Score(score, logit, modality, tokens, image)

    def _max_batch_size(self, model_name: str) -> int:
        if model_name not in self._manifest.max_batch_size:
            raise ContractError(f"the server's manifest has no max_batch_size.{model_name}; export the model again")
        return self._manifest.max_batch_size[model_name]


@dataclass(slots=True)
class _Call:
    """State of one call.

    Attributes:
        lane: How much of the server it may take.
        outcome: What is known so far.
        tokens: By index, of the documents that have a text.
        images: By index, of the documents that have an image, once it is sent.
        sent: Requests not yet answered: handle, modality, indexes of the rows.
    """

    lane: Lane
    outcome: Outcome = field(default_factory=Outcome)
    tokens: dict[int, TokenizedText] = field(default_factory=dict)
    images: dict[int, PreparedImage] = field(default_factory=dict)
    sent: deque[tuple[Handle[InferResponse], Modality, list[int]]] = field(default_factory=deque)

    def fail(self, index: int, error: LycheeError) -> None:
        if isinstance(error, InvalidInputError):
            error.index = index
        self.outcome.errors[index] = error


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


def _read_output(response: InferResponse, name: str, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
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
