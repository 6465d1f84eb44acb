"""Queries and documents as other libraries have them: Pillow images, arrays, data URLs, dicts of text and image."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from typing import Final

import numpy as np
import PIL.Image

from lychee_client._errors import InvalidInputError
from lychee_client.preprocessing.image import Image
from lychee_client.types import Images, ImageText, Input, Text, combine

_PARTS: Final = {"text", "image"}


def to_input(value: object) -> Input:
    """Return a query or document; a string is always a text.

    Args:
        value: What LycheeClient takes; a Pillow image; an array of pixels; or a mapping with "text", "image" (one, or a
            list of several: see `to_image`) or both.

    Raises:
        InvalidInputError: It is none of them.
    """
    if isinstance(value, (str, Text, Image, Images, ImageText)):
        return value
    if isinstance(value, (PIL.Image.Image, np.ndarray)):
        return to_image(value)
    if isinstance(value, Mapping) and value and set(value) <= _PARTS:
        text, image = value.get("text"), value.get("image")
        images = list(image) if isinstance(image, (list, tuple)) else [image]
        images = [one for one in images if one is not None]
        if isinstance(text, str) or (text is None and images):
            return combine(text, *map(to_image, images))
    raise InvalidInputError(
        f"a query or document is {_describe(value)}; expected a text, an image (lychee_client.Image, Pillow, numpy) or "
        'a dict with "text", "image" or both'
    )


def to_image(value: object) -> Image:
    """Return an image; nothing is read or decoded before it is ranked.

    Args:
        value: An Image, a Pillow image, an array of pixels, the bytes of a file, a path, or a data URL. Nothing is
            downloaded.

    Raises:
        InvalidInputError: It is none of them, or a URL of another kind.
    """
    if isinstance(value, Image):
        return value
    if isinstance(value, PIL.Image.Image):
        return Image.from_pil(value)
    if isinstance(value, np.ndarray):
        return Image.from_numpy(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return Image.from_bytes(bytes(value))
    if isinstance(value, str) and value.startswith("data:"):
        return from_base64(value.partition(",")[2])
    if isinstance(value, str) and "://" in value:
        raise InvalidInputError(
            f"an image is the URL {value[:80]!r}; images are not downloaded: fetch it, and pass its bytes"
        )
    if isinstance(value, (str, os.PathLike)):
        return Image.from_path(value)
    raise InvalidInputError(
        f"an image is {_describe(value)}; expected an Image, a Pillow image, an array, bytes, a path or a data URL"
    )


def from_base64(data: str | bytes) -> Image:
    """Return the image whose file is encoded in base64, as line-wrapped as it may be.

    Raises:
        InvalidInputError: It is no base64.
    """
    try:
        return Image.from_bytes(base64.b64decode(data if isinstance(data, bytes) else data.encode("ascii")))
    except (binascii.Error, UnicodeEncodeError) as error:
        raise InvalidInputError(f"an image is {data[:40]!r}..., which is not base64: {error}") from error


def _describe(value: object) -> str:
    if isinstance(value, Mapping):
        return f"a mapping with the keys {', '.join(map(repr, value))}" if value else "an empty mapping"
    return f"{type(value).__module__}.{type(value).__qualname__}"
