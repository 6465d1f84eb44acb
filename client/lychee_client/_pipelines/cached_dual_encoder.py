"""Dual encoders with an embedding cache: only what it has not is encoded, and the scoring heads do the rest."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

import numpy as np

from lychee_client._embedding_cache import EmbeddingCache, encoder_artifacts
from lychee_client._image_spec import ImageSpec
from lychee_client._manifest import Manifest
from lychee_client._pipelines.dual_encoder import TEXT_ENCODER, VISION_ENCODER, DualEncoder
from lychee_client._pipelines.encoding import EMBEDDINGS, Encoder, Encoding
from lychee_client._pipelines.lanes import LANES, Lane
from lychee_client._pipelines.scoring import Outcome, Preparation, Scoring
from lychee_client._plan import Handle, Plan, run, wait
from lychee_client._text import TextProcessor
from lychee_client._transports.base import Tensor
from lychee_client._types import CacheUse, Input, Modality, Timings, image_of, modality_of, text_of

HEADS: Final[dict[Modality, str]] = {
    "text": "scoring_head_text",
    "image": "scoring_head_image",
    "image_text": "scoring_head_image_text",
}
_TEXT: Final = EMBEDDINGS[TEXT_ENCODER]
_IMAGE: Final = EMBEDDINGS[VISION_ENCODER]


def can_cache(manifest: Manifest) -> bool:
    """Say whether a model's embeddings can be told from another one's, and its scoring heads can be asked."""
    is_known = all(encoder_artifacts(manifest, encoder) for encoder in EMBEDDINGS)
    return is_known and manifest.max_batch_size.keys() >= {*EMBEDDINGS, *HEADS.values()}


class CachedDualEncoder(DualEncoder):
    """Plans for one model.

    Args:
        manifest: Of the model; passes `can_cache`.
        text_processor: Made from the model's tokenizer.
        image_spec: How to prepare images.
        cache: Keeps the documents' embeddings.
    """

    def __init__(
        self, manifest: Manifest, text_processor: TextProcessor, image_spec: ImageSpec, cache: EmbeddingCache
    ) -> None:
        super().__init__(manifest, text_processor, image_spec)
        self._encoder = Encoder(manifest, text_processor, image_spec, cache)

    def rerank(
        self,
        query: Input,
        documents: Sequence[Input],
        instruction: str | None = None,
        lane: Lane = LANES["interactive"],
    ) -> Plan[Outcome]:
        """See Pipeline."""
        started = time.perf_counter()

        def make_head_tensors(indexes: Sequence[int]) -> dict[str, Tensor]:
            """Return the tensors of documents of one modality."""
            tensors: dict[str, Tensor] = {"query_embedding": np.repeat(query_embedding, len(indexes), axis=0)}
            for name in parts[indexes[0]]:
                tensors[name] = np.stack([encoding.embeddings[parts[index][name]].vector for index in indexes])
            return tensors

        scoring = Scoring(self._manifest, lane, make_head_tensors)
        outcome = scoring.outcome
        outcome.embedding_cache = CacheUse(0, 0)
        valid = scoring.check_documents(documents)
        if not valid:
            return outcome
        query_requests = yield from self._send_query(query, instruction, lane)
        parts = yield from self._take_apart(documents, valid, scoring)
        encoding = Encoding(self._encoder, lane)
        for index, keys in parts.items():
            if _TEXT in keys:
                encoding.texts[keys[_TEXT]] = scoring.tokens[index]
            image = image_of(documents[index])
            if image is not None:
                encoding.images[keys[_IMAGE]] = image
        yield from encoding.send()
        query_embedding = yield from self._read_query(query_requests)
        encoded = time.perf_counter()
        storing = yield from encoding.read()
        outcome.embedding_cache = encoding.use

        by_modality: dict[Modality, list[int]] = {modality: [] for modality in HEADS}
        for index, keys in parts.items():
            errors = [encoding.errors[key] for key in keys.values() if key in encoding.errors]
            if errors:
                outcome.fail(index, copy.copy(errors[0]))  # another document may have it too, with its own index
                continue
            by_modality[modality_of(documents[index])].append(index)
            sizes = encoding.embeddings[keys[_IMAGE]].image if _IMAGE in keys else None
            if sizes is not None:
                scoring.images[index] = sizes
        for modality, indexes in by_modality.items():
            yield from scoring.send_batches(HEADS[modality], modality, dict.fromkeys(indexes, 1))
        yield from scoring.read()
        if storing is not None:
            yield from wait(storing)
        finished = time.perf_counter()
        outcome.timings = Timings(
            total_ms=1e3 * (finished - started),
            preprocess_ms=1e3 * (encoding.preprocessed - started),
            encode_query_ms=1e3 * (encoded - started),
            score_documents_ms=1e3 * (finished - encoding.began),
        )
        return outcome

    def _take_apart(
        self, documents: Sequence[Input], valid: Sequence[int], scoring: Scoring
    ) -> Plan[dict[int, dict[str, bytes]]]:
        """Return the keys of each document's embeddings by name; note tokens, and images that cannot be read."""
        texts = {index: text for index in valid if (text := text_of(documents[index])) is not None}
        tokenizing = yield from run(partial(self._text_processor.tokenize_documents, list(texts.values())))
        keys: dict[int, dict[str, bytes]] = {index: {} for index in valid}

        def begin(index: int) -> Plan[Handle[bytes] | bytes]:
            image = image_of(documents[index])
            assert image is not None
            return (yield from run(image.content_hash))

        def note(index: int, content_hash: bytes) -> Plan[None]:
            keys[index][_IMAGE] = self._encoder.image_keys.make(content_hash)
            yield from ()

        pictured = [index for index in valid if image_of(documents[index]) is not None]
        yield from Preparation(pictured, begin, scoring.outcome.fail).for_each(note)
        scoring.tokens.update(zip(texts, (yield from wait(tokenizing)), strict=True))
        for index, tokens in scoring.tokens.items():
            keys[index][_TEXT] = self._encoder.text_keys.make(np.array(tokens.ids, "<i8").tobytes())
        return {index: keys[index] for index in valid if index not in scoring.outcome.errors}
