"""Queries and documents that no cache has seen before."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Iterator

import numpy as np
from lychee_server.examples import read_catalogue
from PIL import Image as PillowImage

__all__ = ["fresh_photos", "fresh_queries", "fresh_texts", "to_data_url"]

_NOUNS = ("cat", "coffee", "rocket", "palace", "flower", "wall", "camera", "coin", "boat", "apple", "river", "chair")
_JPEG_QUALITY = 85


def fresh_queries(start: int = 0) -> Iterator[str]:
    """Yield short queries, each once; runs that begin with different numbers share none."""
    for number in itertools.count(start):
        yield f"{_NOUNS[number % len(_NOUNS)]} {number}"


def fresh_texts(start: int = 0) -> Iterator[str]:
    """Yield texts of at most 16 tokens, each once, like the queries."""
    for number in itertools.count(start):
        yield f"a small {_NOUNS[number % len(_NOUNS)]} on a table {number}"


def fresh_photos(start: int = 0) -> Iterator[bytes]:
    """Yield JPEG files of the catalogue's photos (at most 480 px), each once: one block of pixels differs."""
    paths = sorted({document.photo for document in read_catalogue().documents if document.photo is not None})
    photos = [np.array(PillowImage.open(path).convert("RGB")) for path in paths]
    rng = np.random.default_rng(start)
    for photo in itertools.cycle(photos):
        changed = photo.copy()
        row, column = photo.shape[0] // 2, photo.shape[1] // 2
        changed[row : row + 32, column : column + 32] = rng.integers(0, 256, (32, 32, 3))
        stream = io.BytesIO()
        PillowImage.fromarray(changed).save(stream, "JPEG", quality=_JPEG_QUALITY)
        yield stream.getvalue()


def to_data_url(jpeg: bytes) -> str:
    """Return a JPEG file as the REST APIs take it."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"
