"""Small pictures for the page."""

from __future__ import annotations

import base64
import io
from typing import Final

import PIL.Image
import PIL.ImageOps
from lychee_client.preprocessing.depth import WIDE_MODES, to_eight_bits
from lychee_client.preprocessing.formats import open_image

EDGE: Final = 160  # pixels; shown at half of it, sharp on dense screens
MAX_PIXELS: Final = 64_000_000
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
            opened.draft("RGB", (2 * EDGE, 2 * EDGE))
            image = PIL.ImageOps.exif_transpose(opened)
            if image.mode in WIDE_MODES:
                image = to_eight_bits(image, "the image")
            image.thumbnail((EDGE, EDGE))
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), image)
            out = io.BytesIO()
            image.convert("RGB").save(out, "JPEG", quality=QUALITY)
    except Exception:  # Pillow's readers raise whatever damaged bytes make them stumble over
        return None
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode('ascii')}"
