"""The scores of a cross-encoder's pairs in a cache: what one is named after, and how it is written there."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from lychee_client._embedding_cache import (
    EmbeddingCache,
    encoder_artifacts,
    get_entries,
    put_entries,
    seal,
    unseal,
)
from lychee_client._errors import InvalidInputError
from lychee_client._pipelines.scoring import Score
from lychee_client.manifest.image_spec import ImageSpec
from lychee_client.manifest.manifest import Manifest
from lychee_client.preprocessing.image import ImageSizes
from lychee_client.preprocessing.text import TokenizedText
from lychee_client.types import Input, images_of, modality_of, text_of

# To be changed with whatever changes a score but is not in a manifest, such as how images are decoded.
KEY_FORMAT: Final = "lychee pair score 1"
_MAGIC: Final = b"lys1"
# Magic; score and logit; tokens, and whether cut; size of the image, size as resized; its tokens and 1, or 0.
_BODY: Final = struct.Struct("<4s2fIB5I")


def can_cache_scores(manifest: Manifest) -> bool:
    """Say whether a model's scores can be told from another one's."""
    return bool(encoder_artifacts(manifest, "text_encoder"))


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the pairs of a call before it.

    Attributes:
        keys: The names of the pairs, by index of the document.
        scores: The scores that are known, likewise.
        errors: What is wrong with an image whose file cannot be read, likewise.
    """

    keys: dict[int, bytes]
    scores: dict[int, Score]
    errors: dict[int, InvalidInputError]


class PairScores:
    """The scores of one model's pairs, under names that are equal only where model, preprocessing and content are.

    Args:
        manifest: The manifest of the model, which must pass `can_cache_scores`.
        image_spec: How images are prepared; None where there are none.
        cache: Keeps the scores.
    """

    def __init__(self, manifest: Manifest, image_spec: ImageSpec | None, cache: EmbeddingCache) -> None:
        identity = manifest.identity
        fields = [KEY_FORMAT, identity.model_id, identity.revision, identity.precision]
        fields += [repr(sorted(identity.execution.items())), repr(sorted(manifest.artifacts.items()))]
        fields += [repr(manifest.text), repr(manifest.prompt), repr(image_spec)]
        self._hash = hashlib.sha256(json.dumps(fields).encode())
        self._cache = cache

    def make_key(self, query: Input, document: Input, instruction: str | None) -> bytes:
        """Return the name of a pair, 32 bytes.

        Raises:
            InvalidInputError: The file of an image cannot be read.
        """
        content = json.dumps([instruction, *_content(query), *_content(document)])
        pair_hash = self._hash.copy()
        pair_hash.update(content.encode())
        return pair_hash.digest()

    def look_up(
        self, query: Input, documents: Sequence[Input], indexes: Sequence[int], instruction: str | None
    ) -> Known:
        """Return what is known of the documents at these indexes.

        Raises:
            InvalidInputError: The file of the query's image cannot be read.
        """
        known = Known({}, {}, {})
        _content(query)
        for index in indexes:
            try:
                known.keys[index] = self.make_key(query, documents[index], instruction)
            except InvalidInputError as error:
                known.errors[index] = error
        entries = get_entries(self._cache, list(known.keys.values()))
        for index, key in known.keys.items():
            score = read_score(key, entries.get(key), documents[index])
            if score is not None:
                known.scores[index] = score
        return known

    def store(
        self,
        query: Input,
        documents: Sequence[Input],
        instruction: str | None,
        keys: Mapping[int, bytes],
        scores: Mapping[int, Score],
    ) -> None:
        """Keep scores, by index, unless a file has changed since its pair was named."""
        entries = {}
        for index, score in scores.items():
            if self.make_key(query, documents[index], instruction) == keys[index]:
                entries[keys[index]] = write_score(keys[index], score)
        put_entries(self._cache, entries)


def write_score(key: bytes, score: Score) -> bytes:
    """Return a score as bytes, which `read_score` takes under the same key only."""
    tokens, image = score.tokens, score.image
    count, truncated = (0, False) if tokens is None else (len(tokens.ids), tokens.truncated)
    sizes = (0, 0, 0, 0) if image is None else (*image.size, *image.resized_to)
    image_tokens = 0 if image is None or image.tokens is None else image.tokens + 1
    body = _BODY.pack(_MAGIC, score.relevance_score, score.logit, count, truncated, *sizes, image_tokens)
    return seal(key, body)


def read_score(key: bytes, entry: bytes | None, document: Input) -> Score | None:
    """Return the score of a document, or None if the bytes are none of ours or damaged."""
    body = unseal(key, entry, _BODY.size)
    if body is None:
        return None
    magic, relevance, logit, count, truncated, width, height, *resized, image_tokens = _BODY.unpack(body)
    if magic != _MAGIC or not 0 <= relevance <= 1 or not math.isfinite(logit):
        return None
    image = None
    if width:
        image = ImageSizes((width, height), (resized[0], resized[1]), image_tokens - 1 if image_tokens else None)
    tokens = TokenizedText(range(count), bool(truncated), count)  # only how many they were is known
    return Score(relevance, logit, modality_of(document), tokens, image)


def _content(value: Input) -> tuple[str | None, list[str]]:
    return text_of(value), [image.content_hash().hex() for image in images_of(value)]
