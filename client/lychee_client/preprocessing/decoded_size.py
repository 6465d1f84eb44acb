"""How many bytes an image takes while it is decoded, known from its header."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import PIL.Image

from lychee_client.preprocessing.depth import WIDE_MODES
from lychee_client.preprocessing.pixels import Size

# Measured as the growth of the peak of resident memory, with Pillow 12.3 on images of 12 to 64 megapixels.
_MODE_BYTES: Final[Mapping[str, int]] = {
    **{"1": 1, "L": 1, "P": 1},
    **dict.fromkeys(WIDE_MODES, 16),  # counted, not measured: the copies of to_eight_bits
}
_PIXEL_BYTES: Final = 4  # of all other modes, RGB included
# These decoders hold whole frames of their own besides.
_FORMAT_BYTES: Final[Mapping[str, int]] = {"WEBP": 16, "AVIF": 16, "HEIF": 16, "GIF": 9, "TIFF": 8}
_COEFFICIENT_BYTES: Final = 2  # of a progressive JPEG, which is kept in full size


def count_decoded_bytes(image: PIL.Image.Image, full_size: Size, resized_to: Size, *, turned: bool) -> int:
    """Return how many bytes decoding and resizing an image takes at its peak.

    Args:
        image: What Pillow has opened, and perhaps drafted, and not decoded.
        full_size: The width and height in the file, in pixels.
        resized_to: The width and height that it will be resized to, upright.
        turned: Whether it is turned or mirrored before that, which takes a copy.
    """
    pixels = math.prod(image.size)
    pixel_bytes = _MODE_BYTES.get(image.mode, _PIXEL_BYTES)
    decoded = pixels * _FORMAT_BYTES.get(image.format or "", pixel_bytes)
    if image.info.get("progressive"):
        decoded += int(math.prod(full_size) * _count_samples(image) * _COEFFICIENT_BYTES)
    copy = pixels * pixel_bytes if turned else 0
    rows = max(image.size) if turned else image.height
    return decoded + copy + rows * resized_to[0] * _PIXEL_BYTES  # the last: resized in width alone


def _count_samples(image: Any) -> float:
    """Return how many samples a pixel of a JPEG has: 3, or fewer where colours are coarser."""
    layers: list[tuple[int, int]] = [
        (horizontal, vertical) for _, horizontal, vertical, *_ in getattr(image, "layer", [])
    ]
    if not layers:
        return 3.0
    most = max(horizontal for horizontal, _ in layers) * max(vertical for _, vertical in layers)
    return sum(horizontal * vertical for horizontal, vertical in layers) / most
