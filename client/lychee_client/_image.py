"""Images: where they come from, what is refused, and how they become `pixel_values`."""

from __future__ import annotations

import io
import os
import stat
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import PIL.ExifTags
import PIL.Image
import PIL.ImageOps

from lychee_client._errors import InvalidInputError
from lychee_client._manifest import ImageSpec

MAX_PIXELS: Final = 64_000_000
MAX_SIZE_BYTES: Final = 64 * 2**20
MAX_ASPECT_RATIO: Final = 4
# A JPEG is decoded at 1/2, 1/4 or 1/8 of its size if that leaves at least so many times the pixels per edge that the
# model wants. Measured on ten photos of 12 megapixels, with 4 (2, 1): 2.5 (3.6, 7.7) times as fast as decoding all;
# pixels differ by at most 1 (4, 14), embeddings by a cosine of at least 0.9995 (0.9974, 0.9930).
JPEG_OVERSAMPLING: Final = 4
# Photo formats only: some of Pillow's other readers start programs (EPS) or are rarely exercised. "JPEG"
# includes the MPO files that many cameras write as .jpg.
FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
_SIXTEEN_BIT_MODES: Final = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})
_TURNED: Final = frozenset({5, 6, 7, 8})  # Exif orientations that swap width and height
_RESAMPLING: Final = {"bicubic": PIL.Image.Resampling.BICUBIC}

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """An image as the model reads it.

    Attributes:
        pixel_values: uint8, (3, height, width), RGB.
        size: Width and height of the original, upright, in pixels.
        resized_to: The same after resizing, before the crop.
    """

    pixel_values: Pixels
    size: tuple[int, int]
    resized_to: tuple[int, int]


class Image:
    """An image query or document. Make one with `from_path`, `from_bytes`, `from_pil` or `from_numpy`.

    Nothing is read or decoded before the first ranking, where a broken image becomes an error of its document. The
    preprocessed pixels (150 KB for lychee-mini) stay with the object, so ranking it again decodes nothing, and a file
    that has changed since is not read again: make a new Image.
    """

    __slots__ = ("_lock", "_prepared", "_source", "_spec")

    def __init__(self, source: Path | bytes | PIL.Image.Image) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._spec: ImageSpec | None = None
        self._prepared: PreparedImage | None = None

    @classmethod
    def from_path(cls, path: str | os.PathLike[str]) -> Image:
        """Take a file (JPEG, PNG, WebP, GIF, BMP, TIFF or PPM), which is read when it is ranked."""
        return cls(Path(path))

    @classmethod
    def from_bytes(cls, data: bytes) -> Image:
        """Take the content of an image file."""
        return cls(bytes(data))

    @classmethod
    def from_pil(cls, image: PIL.Image.Image) -> Image:
        """Take a Pillow image of any mode. It is not copied: do not change it before it is ranked."""
        return cls(image)

    @classmethod
    def from_numpy(cls, pixels: npt.NDArray[Any]) -> Image:
        """Take decoded pixels; they are copied.

        Args:
            pixels: uint8, (height, width, 3) RGB or (height, width) gray.

        Raises:
            InvalidInputError: Another dtype or shape, or no pixels at all.
        """
        array = np.asarray(pixels)
        fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
        if array.dtype != np.uint8 or not fits or array.size == 0:
            raise InvalidInputError(
                f"the array is {array.dtype} with shape {array.shape}; expected uint8 with shape (height, width, 3) "
                "in RGB order or (height, width), neither of them zero"
            )
        return cls(PIL.Image.fromarray(array.copy()))

    def __repr__(self) -> str:
        if isinstance(self._source, bytes):
            return f"Image({len(self._source)} bytes)"
        return f"Image({self._source!r})"

    def cached(self, spec: ImageSpec) -> PreparedImage | None:
        """Return what an earlier `prepare` with the same spec made, or None."""
        return self._prepared if self._spec == spec else None

    def prepare(self, spec: ImageSpec) -> PreparedImage:
        """Read, decode and preprocess, or return what an earlier call made. Safe to call from several threads.

        Args:
            spec: From the manifest.

        Raises:
            InvalidInputError: The image cannot be read or decoded, or is too large.
        """
        with self._lock:
            prepared = self.cached(spec)
            if prepared is None:
                image, size = _decode(self._source, JPEG_OVERSAMPLING * spec.resize_shortest_edge)
                pixel_values, resized_to = preprocess(image, spec)
                prepared = PreparedImage(pixel_values, size, resized_to)
                self._spec, self._prepared = spec, prepared
            return prepared


def preprocess(image: PIL.Image.Image, spec: ImageSpec) -> tuple[Pixels, tuple[int, int]]:
    """Resize the shortest edge and crop the centre.

    Equal, bit for bit, to transformers' CLIPImageProcessorPil with rescaling and normalization off, up to an aspect
    ratio of 4. Beyond it the image is first cropped centrally to that ratio, which is the same up to a shift of less
    than a pixel: what is cut away could not reach the final crop, and resizing all of it may not fit into memory (a
    20,000 x 1 image would become 5,120,000 x 256).

    Args:
        image: Mode RGB.
        spec: From the manifest.

    Returns:
        uint8, (3, height, width), C-contiguous; and width and height before the crop.
    Source: transformers 5.23.0, image_transforms.py, get_resize_output_image_size and center_crop.
    """
    width, height = image.size
    short, long = min(width, height), max(width, height)
    if long > MAX_ASPECT_RATIO * short:
        long = MAX_ASPECT_RATIO * short
        image = _crop_centre(image, min(width, long), min(height, long))
        width, height = image.size
    edge = spec.resize_shortest_edge
    scaled_long = int(edge * long / short)
    size = (edge, scaled_long) if width <= height else (scaled_long, edge)
    resized = image.resize(size, _RESAMPLING[spec.resample])
    cropped = np.asarray(_crop_centre(resized, spec.width, spec.height))  # (height, width, 3)
    return np.ascontiguousarray(cropped.transpose(2, 0, 1)), size


def _crop_centre(image: PIL.Image.Image, width: int, height: int) -> PIL.Image.Image:
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _decode(source: Path | bytes | PIL.Image.Image, edge: int) -> tuple[PIL.Image.Image, tuple[int, int]]:
    """Return the first frame in mode RGB, upright, on white; and the original's width and height, upright.

    Args:
        source: Of the image.
        edge: A JPEG may be decoded smaller, if its shortest edge keeps at least so many pixels.
    """
    if isinstance(source, PIL.Image.Image):
        return _decode_opened(source, "the image")
    if isinstance(source, Path):
        data, name = _read_file(source), str(source)
    else:
        data, name = source, "the image"
    if len(data) > MAX_SIZE_BYTES:
        raise InvalidInputError(f"{name} has {len(data)} bytes, the limit is {MAX_SIZE_BYTES}; shrink the image")
    try:
        opened = PIL.Image.open(io.BytesIO(data), formats=FORMATS)
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        raise InvalidInputError(f"{name} has more than the {MAX_PIXELS} pixels allowed; shrink it") from error
    except Exception as error:  # Pillow's readers raise whatever damaged bytes make them stumble over
        reason = "unknown format" if isinstance(error, PIL.UnidentifiedImageError) else error
        raise InvalidInputError(
            f"{name} ({len(data)} bytes) is not a readable image: {reason}; expected one of {', '.join(FORMATS)}"
        ) from error
    with opened:
        return _decode_opened(opened, name, edge)


def _read_file(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InvalidInputError(f"{path} is not a regular file; expected an image file")
        if status.st_size > MAX_SIZE_BYTES:
            raise InvalidInputError(f"{path} has {status.st_size} bytes, the limit is {MAX_SIZE_BYTES}; shrink it")
        return path.read_bytes()
    except InvalidInputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or error
        raise InvalidInputError(f"{path} cannot be read: {reason}; check the path and its permissions") from error


def _decode_opened(
    image: PIL.Image.Image, name: str, edge: int | None = None
) -> tuple[PIL.Image.Image, tuple[int, int]]:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise InvalidInputError(f"{name} has {width} x {height} pixels, the limit is {MAX_PIXELS}; shrink it")
    if width * height == 0:
        raise InvalidInputError(f"{name} has {width} x {height} pixels, expected at least 1 x 1")
    try:
        if edge is not None:
            image.draft(None, (edge, edge))  # only the JPEG reader can; the others ignore it
        image.load()
        upright, turned = _upright(image)
        return _to_rgb(upright), (height, width) if turned else (width, height)
    except Exception as error:  # see above
        raise InvalidInputError(f"{name} cannot be decoded: {error}; the file may be damaged or cut off") from error


def _upright(image: PIL.Image.Image) -> tuple[PIL.Image.Image, bool]:
    """Return the image as the camera meant it, and whether width and height changed places."""
    try:
        turned = image.getexif().get(PIL.ExifTags.Base.Orientation) in _TURNED
        return PIL.ImageOps.exif_transpose(image), turned
    except Exception:  # damaged metadata does not make the pixels unusable
        return image, False


def _to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """Convert any mode to RGB: transparency on white, 16 bits scaled to 8."""
    if image.mode in _SIXTEEN_BIT_MODES:
        wide = np.asarray(image).astype(np.int64).clip(0, 65535)  # (height, width)
        image = PIL.Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        white = PIL.Image.new("RGBA", with_alpha.size, "white")
        return PIL.Image.alpha_composite(white, with_alpha).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")
