"""Small pictures for the page."""

from __future__ import annotations

import base64
import io
from typing import Final

import PIL.Image
import PIL.ImageOps
from lychee_client.preprocessing.decoded_size import count_decoded_bytes
from lychee_client.preprocessing.decoding_memory import decoding_memory
from lychee_client.preprocessing.depth import WIDE_MODES, to_eight_bits
from lychee_client.preprocessing.formats import open_image
from lychee_client.preprocessing.image import MAX_PIXELS
from lychee_client.preprocessing.pixels import resize

EDGE: Final = 160  # pixels; shown at half of it, sharp on dense screens
QUALITY: Final = 80


def make_thumbnail(data: bytes) -> str | None:
    """Return a JPEG of at most EDGE x EDGE pixels as a data URL, or None where the image cannot be read.

    Args:
        data: Content of an image file.
    """
    try:
        with open_image(data) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                return None
            full_size = opened.size
            opened.draft("RGB", (2 * EDGE, 2 * EDGE))
            memory = decoding_memory()
            size_bytes = count_decoded_bytes(opened, full_size, (EDGE, EDGE), turned=False)
            memory.check(size_bytes, "the image")
            with memory.hold(size_bytes):
                PIL.ImageOps.exif_transpose(opened, in_place=True)
                deep = opened.mode in WIDE_MODES
                upright = to_eight_bits(opened, "the image") if deep else opened
                scale = min(1.0, EDGE / max(upright.size))
                size = max(1, round(upright.width * scale)), max(1, round(upright.height * scale))
                image = resize(upright, size, "bicubic")
            out = io.BytesIO()
            image.save(out, "JPEG", quality=QUALITY)
    except Exception:  # Pillow's readers raise whatever damaged bytes make them stumble over
        return None
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode('ascii')}"
