"""Image formats: those that are read, and the names of others, for messages."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from typing import Final

import PIL.features
import PIL.Image

# Photo formats only: some of Pillow's other readers start programs (EPS) or are rarely exercised. "JPEG"
# includes the MPO files that many cameras write as .jpg.
FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
IMAGE_SUFFIXES: Final = (
    *(".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm"),
    *(".avif", ".heic", ".heif"),
)
# BMP and PPM are not among them: their two bytes "BM" or "P6" may well begin a text.
_SIGNATURES: Final[Mapping[bytes, str]] = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
}
_OTHER_SIGNATURES: Final[Mapping[bytes, str]] = {
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\x00\x00\x00\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"\x00\x00\x01\x00": "ICO",
    b"icns": "ICNS",
    b"8BPS": "Photoshop (PSD)",
    b"%PDF": "PDF",
    b"%!PS": "PostScript (EPS)",
    b"DDS ": "DDS",
    b"qoif": "QOI",
    b"v/1\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"II+\x00": "BigTIFF",
    b"MM\x00+": "BigTIFF",
    b"<svg": "SVG",
    b"<?xml": "XML (SVG?)",
    b"<!DOCTYPE": "a web page",
    b"<html": "a web page",
    b"PK\x03\x04": "ZIP",
    b"\x1f\x8b": "gzip",
    b"BM": "BMP",
    b"P4": "PPM",
    b"P5": "PPM",
    b"P6": "PPM",
}
_AVIF_BRANDS: Final = frozenset({b"avif", b"avis"})
_HEIC_BRANDS: Final = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})


@cache
def list_formats() -> tuple[str, ...]:
    """Return the formats that are read here, as Pillow calls them; HEIC is "HEIF" and needs the package pillow-heif."""
    avif = ("AVIF",) if PIL.features.check("avif") else ()
    return (*FORMATS, *avif, *(("HEIF",) if find_spec("pillow_heif") is not None else ()))


def find_signature(data: bytes) -> str | None:
    """Name the format of a file that is certainly an image of a format that may be read; None for any other."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        brands = {data[8:12], *(data[at : at + 4] for at in range(16, min(data[3], 64), 4))}
        return "AVIF" if brands & _AVIF_BRANDS else "HEIF" if brands & _HEIC_BRANDS else None
    return next((name for start, name in _SIGNATURES.items() if data.startswith(start)), None)


def open_image(data: bytes) -> PIL.Image.Image:
    """Open an image of the formats that are read.

    Raises:
        Exception: Pillow's readers raise whatever damaged bytes make them stumble over; see `explain`.
    """
    formats = list_formats()
    if "HEIF" in formats and find_signature(data) == "HEIF":
        import pillow_heif  # an extra

        pillow_heif.register_heif_opener(thumbnails=False)
        formats = ("HEIF",)
    else:
        formats = tuple(name for name in formats if name != "HEIF")
    return PIL.Image.open(io.BytesIO(data), formats=formats)


def explain(data: bytes) -> str:
    """Say why `open_image` could not open this, in words of our own."""
    expected = f"expected one of {', '.join(list_formats())}"
    name = find_signature(data)
    if name == "HEIF" and name not in list_formats():
        return f"its format is HEIC, which needs `pip install 'lychee-rerank-client[heic]'`; without it, {expected}"
    if name is None and data[4:8] == b"ftyp":
        name = "MP4 or a relative of it"
    if name is None:
        start = data[:64].lstrip(b" \t\r\n\xef\xbb\xbf")
        name = next((name for magic, name in _OTHER_SIGNATURES.items() if start.startswith(magic)), None)
    if name in list_formats():
        return f"the {name} file is damaged or cut off; save it again"
    return f"unknown format; {expected}" if name is None else f"its format is {name}; {expected}"
