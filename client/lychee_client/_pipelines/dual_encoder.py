"""Dual encoders: the query is encoded once, then each document is sent to the ensemble of its modality."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from lychee_client._image import PreparedImage
from lychee_client._image_spec import ImageSpec
from lychee_client._manifest import Manifest
from lychee_client._pipelines.lanes import LANES, Lane
from lychee_client._pipelines.scoring import Outcome, Preparation, Scoring, read_output
from lychee_client._plan import Handle, Plan, run, send, wait
from lychee_client._text import TextProcessor
from lychee_client._transports.base import InferRequest, InferResponse, Tensor
from lychee_client._types import Input, Modality, Timings, image_of, text_of

TEXT_ENCODER: Final = "text_encoder"
VISION_ENCODER: Final = "vision_encoder"
ENSEMBLES: Final[dict[Modality, str]] = {
    "text": "rerank_text",
    "image": "rerank_image",
    "image_text": "rerank_image_text",
}

Embedding = npt.NDArray[np.float32]


class DualEncoder:
    """Plans for one model.

    Args:
        manifest: Of the model.
        text_processor: Made from the model's tokenizer.
        image_spec: How to prepare images.
    """

    def __init__(self, manifest: Manifest, text_processor: TextProcessor, image_spec: ImageSpec) -> None:
        assert manifest.embedding_dim is not None
        self._manifest = manifest
        self._embedding_dim = manifest.embedding_dim
        self._text_processor = text_processor
        self._image_spec = image_spec

    def rerank(
        self,
        query: Input,
        documents: Sequence[Input],
        instruction: str | None = None,
        lane: Lane = LANES["interactive"],
    ) -> Plan[Outcome]:
        """See Pipeline."""
        started = time.perf_counter()
        embedding: Embedding

        def make_text_tensors(indexes: Sequence[int]) -> dict[str, Tensor]:
            tensors = self._text_processor.to_tensors([scoring.tokens[index] for index in indexes])
            return {"query_embedding": np.repeat(embedding, len(indexes), axis=0), **tensors}

        scoring = Scoring(self._manifest, lane, make_text_tensors)
        valid = scoring.check_documents(documents)
        if not valid:
            return scoring.outcome
        query_requests = yield from self._send_query(query, instruction, lane)
        texts = {index: text for index in valid if (text := text_of(documents[index])) is not None}
        tokenizing = yield from run(partial(self._text_processor.tokenize_documents, list(texts.values())))
        pictured = [index for index in valid if image_of(documents[index]) is not None]
        preparation = Preparation(pictured, partial(self._prepare_image, documents), scoring.outcome.fail)
        yield from preparation.begin()
        scoring.tokens.update(zip(texts, (yield from wait(tokenizing)), strict=True))
        preprocessed = time.perf_counter()

        embedding = yield from self._read_query(query_requests)
        encoded = time.perf_counter()
        yield from scoring.send_texts(ENSEMBLES["text"], sorted(texts.keys() - set(pictured)))

        def send_image(index: int, image: PreparedImage) -> Plan[None]:
            """Send one image, with its text if it has one, alone: the server merges, and its cache is by request."""
            nonlocal preprocessed
            preprocessed = time.perf_counter()
            scoring.images[index] = image.sizes
            tensors: dict[str, Tensor] = {"query_embedding": embedding, "pixel_values": image.pixel_values[None]}
            modality: Modality = "image"
            if index in scoring.tokens:
                tensors |= self._text_processor.to_tensors([scoring.tokens[index]])
                modality = "image_text"
            yield from scoring.send(ENSEMBLES[modality], modality, tensors, [index])

        yield from preparation.for_each(send_image)
        yield from scoring.read()
        finished = time.perf_counter()
        scoring.outcome.timings = Timings(
            total_ms=1e3 * (finished - started),
            preprocess_ms=1e3 * (preprocessed - started),
            encode_query_ms=1e3 * (encoded - started),
            score_documents_ms=1e3 * (finished - encoded),
        )
        return scoring.outcome

    def _send_query(
        self, query: Input, instruction: str | None, lane: Lane
    ) -> Plan[list[tuple[Handle[InferResponse], str]]]:
        requests = []
        text, image = text_of(query), image_of(query)
        if text is not None:
            spec = self._manifest.instruction
            prefix = None
            if instruction is not None and spec is not None and spec.query_prefix is not None:
                prefix = spec.query_prefix.replace("{instruction}", instruction)
            tensors = self._text_processor.to_tensors([self._text_processor.tokenize_query(text, prefix)])
            request = InferRequest(TEXT_ENCODER, tensors, ("text_embedding",), lane.priority)
            requests.append(((yield from send(request, lane.max_rows_in_flight)), "text_embedding"))
        if image is not None:
            preparing = yield from run(partial(image.prepare, self._image_spec))
            pixel_values = (yield from wait(preparing)).pixel_values[None]
            request = InferRequest(VISION_ENCODER, {"pixel_values": pixel_values}, ("image_embedding",), lane.priority)
            requests.append(((yield from send(request, lane.max_rows_in_flight)), "image_embedding"))
        return requests

    def _read_query(self, requests: list[tuple[Handle[InferResponse], str]]) -> Plan[Embedding]:
        """Return float32, (1, D); the embeddings of text and image together are their normalized sum."""
        embeddings = []
        for handle, output in requests:
            response = yield from wait(handle)
            embeddings.append(read_output(response, output, (1, self._embedding_dim)))
        if len(embeddings) == 1:
            return embeddings[0]
        total = embeddings[0] + embeddings[1]
        normalized: Embedding = total / np.maximum(np.linalg.norm(total), np.float32(1e-12))
        return normalized

    def _prepare_image(self, documents: Sequence[Input], index: int) -> Plan[Handle[PreparedImage] | PreparedImage]:
        image = image_of(documents[index])
        assert image is not None
        prepared = image.cached(self._image_spec)
        if prepared is not None:
            return prepared
        return (yield from run(partial(image.prepare, self._image_spec)))
