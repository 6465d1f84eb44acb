"""What an embedding cache is to the client, and how an embedding is named and written in one."""

from __future__ import annotations

import hashlib
import json
import logging
import struct
import sys
import zlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from lychee_client.manifest.manifest import Manifest
from lychee_client.preprocessing.image import ImageSizes
from lychee_client.preprocessing.text import TokenizedText

# Part of every key: to be changed with whatever changes an embedding but is not in a manifest, such as how images are
# decoded.
KEY_FORMAT: Final = "lychee embedding 1"
_MAGIC: Final = b"lye1"
_HEAD: Final = struct.Struct("<4s4I")  # magic; width and height of the image, and as resized; zeros for a text
_TOKEN_MAGIC: Final = b"lyt2"
# Magic; the length of the text in tokens, whether cut; its bucket; width and height of the image, as resized, and its
# tokens, zeros for a text; the sum of the vectors' words. The vectors follow, then the tokens: so words begin at a
# multiple of 8, and are summed where they lie.
_TOKEN_HEAD: Final = struct.Struct("<4s8I4xQ")
_HALF: Final = np.dtype("<f2")
_WORD: Final = np.dtype("<u8")
_CHECKSUM: Final = struct.Struct("<I")  # of the key and of what is before it

_logger = logging.getLogger("lychee_client")

Vector: TypeAlias = npt.NDArray[Any]


class EmbeddingCache(Protocol):
    """Keeps embeddings of documents between calls; see `lychee_server.gateway.cache` for two.

    Safe to use from several threads. It may forget anything at any time, and an outage of where it keeps things is no
    error: nothing is found then, and nothing is kept.
    """

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return what is kept under each key, in their order; None where nothing is.

        Args:
            keys: The keys to look up, 32 bytes each.
        """

    def put_many(self, entries: Mapping[bytes, bytes]) -> None:
        """Keep values under their keys: some kilobytes each, with late interaction up to some hundreds."""


@dataclass(frozen=True, slots=True)
class CachedEmbedding:
    """What an encoder made of a text or an image.

    Attributes:
        vector: The embedding, float32, (D,); with late interaction the vectors that count, float16, (tokens, D).
        image: The sizes of the image that was encoded; None for a text.
        text: The text that was encoded, of an image the prompt around it, with late interaction alone: there it is
            named by its characters, and what was found in a cache has not been tokenized.
    """

    vector: Vector
    image: ImageSizes | None = None
    text: TokenizedText | None = None


Read: TypeAlias = Callable[[bytes, "bytes | None"], "CachedEmbedding | None"]
"""Reads what is kept under a key."""
Write: TypeAlias = Callable[[bytes, CachedEmbedding], bytes]
"""Writes what `Read` reads under the same key."""


class EmbeddingKeys:
    """Names for what one encoder makes: equal only where model, preprocessing and content are.

    Args:
        manifest: The manifest of the model.
        preprocessing: What happens to the content before it is encoded.
        encoders: The names of the models that it passes through, which must have artifacts in the manifest.
    """

    def __init__(self, manifest: Manifest, preprocessing: str, *encoders: str) -> None:
        artifacts = {name: value for each in encoders for name, value in encoder_artifacts(manifest, each).items()}
        computed = "+".join(manifest.identity.execution.get(each, "") for each in encoders)
        named = "+".join(encoders)
        fields = [KEY_FORMAT, named, manifest.model_id, manifest.precision, computed, preprocessing, artifacts]
        self._hash = hashlib.sha256(json.dumps(fields).encode())

    def make(self, content: bytes) -> bytes:
        """Return the key of a content, 32 bytes."""
        content_hash = self._hash.copy()
        content_hash.update(content)
        return content_hash.digest()


def encoder_artifacts(manifest: Manifest, encoder: str) -> dict[str, str]:
    """Return the hashes of a model's files by name; without any it cannot be told from another one."""
    return {name: value for name, value in sorted(manifest.artifacts.items()) if name.startswith(f"{encoder}/")}


def look_up(cache: EmbeddingCache, keys: Sequence[bytes], read: Read) -> dict[bytes, CachedEmbedding]:
    """Return what is in the cache, by key. What is damaged, or not ours, is not there."""
    embeddings = {key: read(key, entry) for key, entry in get_entries(cache, keys).items()}
    return {key: embedding for key, embedding in embeddings.items() if embedding is not None}


def store(cache: EmbeddingCache, embeddings: Mapping[bytes, CachedEmbedding], write: Write) -> None:
    """Put embeddings into the cache, by key."""
    put_entries(cache, {key: write(key, embedding) for key, embedding in embeddings.items()})


def write_entry(key: bytes, embedding: CachedEmbedding) -> bytes:
    """Return an embedding as bytes, which `read_entry` takes under the same key only."""
    image = embedding.image
    sizes = (0, 0, 0, 0) if image is None else (*image.size, *image.resized_to)
    return seal(key, _HEAD.pack(_MAGIC, *sizes) + embedding.vector.astype("<f4").tobytes())


def read_entry(key: bytes, entry: bytes | None, embedding_dim: int) -> CachedEmbedding | None:
    """Return the embedding, or None if the bytes are none of ours or damaged."""
    body = unseal(key, entry, _HEAD.size + 4 * embedding_dim)
    if body is None:
        return None
    magic, width, height, resized_width, resized_height = _HEAD.unpack_from(body)
    vector = np.frombuffer(body, "<f4", offset=_HEAD.size).astype(np.float32)
    if magic != _MAGIC or not np.isfinite(vector).all():
        return None
    return CachedEmbedding(vector, ImageSizes((width, height), (resized_width, resized_height)) if width else None)


def write_token_vectors(key: bytes, embedding: CachedEmbedding) -> bytes:
    """Return the vectors of a text or page, and its tokens, as bytes which `read_token_vectors` takes."""
    text, image = embedding.text, embedding.image
    assert text is not None  # a document has one
    sizes = (0, 0, 0, 0, 0) if image is None else (*image.size, *image.resized_to, image.tokens or 0)
    vectors = embedding.vector.astype(_HALF).tobytes()
    total = _sum_words(vectors, 0, len(vectors))
    head = _TOKEN_HEAD.pack(_TOKEN_MAGIC, len(text.ids), text.truncated, text.bucket, *sizes, total)
    ids = np.array(text.ids, "<i4").tobytes()
    return head + vectors + ids + _checksum(key, head + ids)


def read_token_vectors(key: bytes, entry: bytes | None, embedding_dim: int) -> CachedEmbedding | None:
    """Return the vectors of a text or page, or None if the bytes are none of ours or damaged.

    The checksums say that they are what was written, and what was written is finite. That of the vectors is a sum,
    which takes less than half the time of a CRC: of 1,000 documents 2.4 ms instead of 5.4.
    """
    begin = _TOKEN_HEAD.size
    if not isinstance(entry, bytes) or len(entry) < begin:
        return None
    magic, count, truncated, bucket, width, height, *resized, tokens, total = _TOKEN_HEAD.unpack_from(entry)
    end = len(entry) - _CHECKSUM.size - 4 * count
    size = end - begin
    if magic != _TOKEN_MAGIC or size <= 0 or size % (2 * embedding_dim):
        return None
    content = entry[end : -_CHECKSUM.size]
    if entry[-_CHECKSUM.size :] != _checksum(key, entry[:begin] + content) or _sum_words(entry, begin, size) != total:
        return None
    ids = array("i", content)
    if sys.byteorder == "big":
        ids.byteswap()
    vectors = np.frombuffer(entry, _HALF, size // 2, begin).reshape(-1, embedding_dim)
    image = ImageSizes((width, height), (resized[0], resized[1]), tokens) if width else None
    return CachedEmbedding(vectors, image, TokenizedText(ids, bool(truncated), bucket))


def get_entries(cache: EmbeddingCache, keys: Sequence[bytes]) -> dict[bytes, bytes | None]:
    """Return what is kept under each key. A cache that fails has nothing: it must not make a call fail."""
    try:
        return dict(zip(keys, cache.get_many(keys), strict=True))
    except Exception as error:
        _logger.warning("the embedding cache failed with %s; nothing was found in it", type(error).__name__)
        return {}


def put_entries(cache: EmbeddingCache, entries: Mapping[bytes, bytes]) -> None:
    """Keep entries under their keys, if the cache does what it is asked."""
    try:
        cache.put_many(entries)
    except Exception as error:  # see above
        _logger.warning("the embedding cache failed with %s; nothing was kept", type(error).__name__)


def seal(key: bytes, body: bytes) -> bytes:
    """Return a body as an entry, which `unseal` takes under the same key only."""
    return body + _checksum(key, body)


def unseal(key: bytes, entry: bytes | None, size_bytes: int) -> bytes | None:
    """Return the body of an entry, or None if it has not so many bytes, is damaged, or belongs to another key."""
    if not isinstance(entry, bytes) or len(entry) != size_bytes + _CHECKSUM.size:
        return None
    body = entry[:size_bytes]
    return body if entry[size_bytes:] == _checksum(key, body) else None


def _checksum(key: bytes, body: bytes) -> bytes:
    return _CHECKSUM.pack(zlib.crc32(body, zlib.crc32(key)))


def _sum_words(content: bytes, begin: int, size_bytes: int) -> int:
    """Return the sum of a part's words of 8 bytes, modulo 2**64, and of what is left over."""
    count = size_bytes // 8
    rest = int.from_bytes(content[begin + 8 * count : begin + size_bytes], "little")
    return (int(np.add.reduce(np.frombuffer(content, _WORD, count, begin))) + rest) % 2**64
