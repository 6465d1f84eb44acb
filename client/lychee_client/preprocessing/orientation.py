"""How a camera was held, as an image's Exif says."""

from __future__ import annotations

from typing import Final

import PIL.ExifTags
import PIL.Image
import PIL.ImageOps

TURNED: Final = frozenset({5, 6, 7, 8})  # orientations that swap width and height


def find_orientation(image: PIL.Image.Image) -> int:
    """Return the Exif orientation, from 1 to 8; 1, upright, where there is none."""
    try:
        return int(image.getexif().get(PIL.ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata does not make the pixels unusable
        return 1


def turn_upright(image: PIL.Image.Image) -> PIL.Image.Image:
    """Return the image upright, without a copy where it is."""
    if find_orientation(image) == 1:
        return image
    try:
        return PIL.ImageOps.exif_transpose(image)
    except Exception:  # see find_orientation
        return image
