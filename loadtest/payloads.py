"""Queries and documents that no cache has seen before."""

from __future__ import annotations

import base64
import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage

__all__ = ["fresh_photos", "fresh_queries", "fresh_texts", "to_data_url"]

_CATALOGUE = Path(__file__).parent.parent / "examples" / "catalogue"
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
    catalogue = json.loads((_CATALOGUE / "catalogue.json").read_text(encoding="utf-8"))
    names = sorted({entry["photo"] for entry in catalogue["documents"] if "photo" in entry})
    photos = [np.array(PillowImage.open(_CATALOGUE / "photos" / name).convert("RGB")) for name in names]
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
