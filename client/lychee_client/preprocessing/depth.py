"""Pixels of more than 8 bits: gray values whose range the file does not always tell."""

from __future__ import annotations

from typing import Final

import numpy as np
import PIL.Image

from lychee_client._errors import InvalidInputError

WIDE_MODES: Final = frozenset({"F", "I", "I;16", "I;16B", "I;16L", "I;16N"})
_FULL_8: Final = 255
_FULL_16: Final = 65535


def to_eight_bits(image: PIL.Image.Image, name: str) -> PIL.Image.Image:
    """Return a gray image of 8 bits.

    Whole numbers are taken from 0 to 65535, and floating-point numbers from 0 to 1. Where that would be all black,
    as no whole number is above 255, or nothing else can be meant, as a float is above 1, they are taken from 0 to 255,
    as Pillow's own conversions make them.

    Args:
        image: An image of one of WIDE_MODES.
        name: What messages call the image.

    Raises:
        InvalidInputError: Its values are outside of that.
    """
    values = np.asarray(image)  # (height, width)
    low, high = values.min(), values.max()
    if values.dtype.kind == "f":
        if not (low >= 0 and high <= _FULL_8):  # NaN is neither
            raise InvalidInputError(
                f"{name} has floating-point pixels from {low:g} to {high:g}; expected 0 to 1, or 0 to 255: scale them, "
                "or save it with 8 bits"
            )
        eight = np.rint(values * _FULL_8 if high <= 1 else values)
    elif low < 0 or high > _FULL_16:
        raise InvalidInputError(
            f"{name} has pixels from {low} to {high}; expected 0 to {_FULL_16}: scale them, or save it with 8 bits"
        )
    elif high <= _FULL_8:
        eight = values
    else:
        eight = (values.astype(np.uint32) * _FULL_8 + _FULL_16 // 2) // _FULL_16
    return PIL.Image.fromarray(eight.astype(np.uint8))
