"""Images: where they come from, what is refused, and how they become `pixel_values`."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import threading
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import PIL.Image

from lychee_client._errors import InvalidInputError
from lychee_client.manifest.image_spec import ImageSpec, PatchSpec, TokenImageSpec
from lychee_client.preprocessing.decoded_size import count_decoded_bytes
from lychee_client.preprocessing.decoding_memory import decoding_memory
from lychee_client.preprocessing.depth import WIDE_MODES, to_eight_bits
from lychee_client.preprocessing.formats import explain, open_image
from lychee_client.preprocessing.orientation import TURNED, find_orientation, turn_upright
from lychee_client.preprocessing.pixels import Pixels, Size, preprocess, target_size, to_rgb

MAX_PIXELS: Final = 64_000_000
MAX_SIZE_BYTES: Final = 64 * 2**20
# A JPEG is decoded at 1/2, 1/4 or 1/8 of its size if that leaves at least so many times the pixels per edge that it
# will be resized to. Measured on ten photos of 12 megapixels for lychee-mini, with 4 (2, 1): 2.5 (3.6, 7.7) times as
# fast as decoding all; pixels differ by at most 1 (4, 14), embeddings by a cosine of at least 0.9995 (0.9974, 0.9930).
JPEG_OVERSAMPLING: Final = 4
PNG_COMPRESSION: Final = 1  # of 9: pixels travel once
_JPEG_FORMATS: Final = frozenset({"JPEG", "MPO"})


@dataclass(frozen=True, slots=True)
class ImageSizes:
    """How large an image is, and how large the model reads it.

    Attributes:
        size: The width and height of the original, upright, in pixels.
        resized_to: The width and height after resizing, before any crop, in pixels.
        tokens: How many tokens of the prompt stand for the image; None where it is not in the prompt.
    """

    size: Size
    resized_to: Size
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """An image as the model reads it.

    Attributes:
        pixel_values: The pixels, uint8, RGB: (3, height, width), (num_patches, patch_bytes), or (num_tiles, 3,
            tile_size, tile_size).
        size: The width and height of the original, upright, in pixels.
        resized_to: The width and height after resizing, before any crop, in pixels.
        grid_thw: The numbers of frames (1), rows and columns of patches; None where the image is not cut into patches.
        tokens: How many tokens of the prompt stand for the image; None where it is not in the prompt.
    """

    pixel_values: Pixels
    size: Size
    resized_to: Size
    grid_thw: tuple[int, int, int] | None = None
    tokens: int | None = None

    @property
    def sizes(self) -> ImageSizes:
        """What remains of interest once the pixels are sent."""
        return ImageSizes(self.size, self.resized_to, self.tokens)


class Image:
    """An image query or document. Make one with `from_path`, `from_bytes`, `from_pil` or `from_numpy`.

    Nothing is read or decoded before the first ranking, where a broken image becomes an error of its document. The
    preprocessed pixels (150 KB for lychee-mini, 3 bytes per pixel after resizing for all models) stay with the object,
    so ranking it again decodes nothing, and a file that has changed since is not read again: make a new Image. A client
    with an embedding cache does not keep them.
    """

    __slots__ = ("_content_hash", "_lock", "_prepared", "_source")

    def __init__(self, source: Path | bytes | PIL.Image.Image) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._prepared: tuple[ImageSpec, PreparedImage] | None = None  # one value: `cached` reads it without the lock
        self._content_hash: bytes | None = None

    @classmethod
    def from_path(cls, path: str | os.PathLike[str]) -> Image:
        """Take a file (JPEG, PNG, WebP, AVIF, GIF, BMP, TIFF or PPM; HEIC with the extra `heic`), read when ranked."""
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
            pixels: The pixels: uint8, (height, width, 3) in RGB or (height, width) in gray.

        Raises:
            InvalidInputError: The array has another dtype or shape, or no pixels at all.
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
        prepared = self._prepared
        return prepared[1] if prepared is not None and prepared[0] == spec else None

    def weigh(self, spec: ImageSpec) -> int:
        """Return how many bytes `prepare` takes at its peak, as far as the image's header tells; 0 if nothing is left.

        Args:
            spec: The manifest's image specification.

        Raises:
            InvalidInputError: `prepare` will refuse the image.
        """
        if self.cached(spec) is not None:
            return 0
        if isinstance(self._source, PIL.Image.Image):
            return _count_bytes(self._source, spec)
        with _open(_read_bytes(self._source), str(self._source)) as opened:
            full_size = opened.size
            if opened.format in _JPEG_FORMATS:
                _decode_smaller(opened, spec)
            return _count_bytes(opened, spec, full_size)

    def count_tokens(self, spec: TokenImageSpec) -> int:
        """Return how many tokens of the prompt stand for the image, as far as its header tells.

        Raises:
            InvalidInputError: `prepare` will refuse the image.
        """
        prepared = self.cached(spec)
        if prepared is not None and prepared.tokens is not None:
            return prepared.tokens
        content = _read(self._source)
        with _open(content, str(self._source)) if isinstance(content, bytes) else nullcontext(content) as opened:
            width, height = target_size(opened.size, spec)
            return spec.count_tokens(height, width)

    def content_hash(self) -> bytes:
        """Return 32 bytes that only this content has: that of the file, undecoded, or the upright RGB pixels.

        If the file is read again and differs, they change with what `prepare` returns. Safe to call from several
        threads.

        Raises:
            InvalidInputError: The file cannot be read, or the Pillow image cannot be used.
        """
        with self._lock:
            if self._content_hash is None:
                if isinstance(self._source, Path):
                    self._prepared = None  # it may be of an earlier content
                self._content_hash = _hash_content(_read(self._source))
            return self._content_hash

    def to_file(self) -> bytes:
        """Return the content of the file as it is; of a Pillow image, a PNG file of its upright RGB pixels.

        Raises:
            InvalidInputError: The file cannot be read or is too large, or the Pillow image cannot be used.
        """
        content = _read(self._source)
        if isinstance(content, bytes):
            _check_size(content, "the image")
            return content
        file = io.BytesIO()
        # Without the Exif that Pillow may still know: its orientation is in the pixels.
        to_rgb(_decode_opened(content, "the image")[0]).save(file, "PNG", compress_level=PNG_COMPRESSION, exif=b"")
        return file.getvalue()

    def prepare(self, spec: ImageSpec, *, keep: bool = True) -> PreparedImage:
        """Read, decode and preprocess, or return what an earlier call made. Safe to call from several threads.

        Args:
            spec: The manifest's image specification.
            keep: Whether the pixels stay with the object.

        Raises:
            InvalidInputError: The image cannot be read or decoded, or is too large or too long.
        """
        with self._lock:
            prepared = self.cached(spec)
            if prepared is None:
                content = _read(self._source)
                if self._content_hash is not None and isinstance(self._source, Path):
                    self._content_hash = _hash_content(content)
                name = str(self._source) if isinstance(self._source, Path) else "the image"
                prepared = _prepare(content, spec, name)
                if keep:
                    self._prepared = spec, prepared
            return prepared


def _read(source: Path | bytes | PIL.Image.Image) -> bytes | PIL.Image.Image:
    return source if isinstance(source, PIL.Image.Image) else _read_bytes(source)


def _read_bytes(source: Path | bytes) -> bytes:
    return _read_file(source) if isinstance(source, Path) else source


def _hash_content(content: bytes | PIL.Image.Image) -> bytes:
    if isinstance(content, bytes):
        content_hash = hashlib.sha256(b"file:")
        content_hash.update(content)
        return content_hash.digest()
    decoded, (width, height) = _decode_opened(content, "the image")
    pixels = to_rgb(decoded)
    content_hash = hashlib.sha256(b"%d x %d pixels:" % (width, height))
    content_hash.update(pixels.tobytes())
    return content_hash.digest()


def _prepare(content: bytes | PIL.Image.Image, spec: ImageSpec, name: str) -> PreparedImage:
    image, size = _decode(content, spec, name)
    pixel_values, resized_to = preprocess(image, spec, size)
    if not isinstance(spec, TokenImageSpec):
        return PreparedImage(pixel_values, size, resized_to)
    tokens = spec.count_tokens(resized_to[1], resized_to[0])
    if not isinstance(spec, PatchSpec):
        return PreparedImage(pixel_values, size, resized_to, tokens=tokens)
    width, height = (edge // spec.patch_size for edge in resized_to)
    return PreparedImage(pixel_values, size, resized_to, (1, height, width), tokens)


def _decode(data: bytes | PIL.Image.Image, spec: ImageSpec, name: str = "the image") -> tuple[PIL.Image.Image, Size]:
    """Return the first frame, upright, in its mode with 8 bits; and the original's width and height, upright.

    Args:
        data: The content of a file, or an image that Pillow has opened.
        spec: How the image will be resized: a JPEG may be decoded smaller if it keeps many times as much.
        name: What messages call the image.
    """
    if isinstance(data, PIL.Image.Image):
        return _decode_opened(data, name)
    with _open(data, name) as opened:
        return _decode_opened(opened, name, spec)


def _open(data: bytes, name: str) -> PIL.Image.Image:
    """Read the header of a file's content."""
    _check_size(data, name)
    try:
        return open_image(data)
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        raise InvalidInputError(f"{name} has more than the {MAX_PIXELS} pixels allowed; shrink it") from error
    except Exception as error:  # Pillow's readers raise whatever damaged bytes make them stumble over
        raise InvalidInputError(f"{name} ({len(data)} bytes) is not a readable image: {explain(data)}") from error


def _check_size(data: bytes, name: str) -> None:
    if len(data) > MAX_SIZE_BYTES:
        raise InvalidInputError(f"{name} has {len(data)} bytes, the limit is {MAX_SIZE_BYTES}; shrink the image")


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


def _decode_opened(image: PIL.Image.Image, name: str, spec: ImageSpec | None = None) -> tuple[PIL.Image.Image, Size]:
    """Decode what Pillow has opened; with a spec, smaller if that costs no pixels that it would need."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise InvalidInputError(f"{name} has {width} x {height} pixels, the limit is {MAX_PIXELS}; shrink it")
    if width * height == 0:
        raise InvalidInputError(f"{name} has {width} x {height} pixels, expected at least 1 x 1")
    try:
        if spec is not None and image.format in _JPEG_FORMATS:
            _decode_smaller(image, spec)
        if spec is not None:
            decoding_memory().check(_count_bytes(image, spec, (width, height)), name)
        image.load()
        turned = find_orientation(image) in TURNED
        upright = turn_upright(image)
        if upright.mode in WIDE_MODES:
            upright = to_eight_bits(upright, name)
        return upright, (height, width) if turned else (width, height)
    except InvalidInputError:
        raise
    except Exception as error:  # see above
        raise InvalidInputError(f"{name} cannot be decoded; its file is damaged or cut off: save it again") from error


def _decode_smaller(image: PIL.Image.Image, spec: ImageSpec) -> None:
    """Have the JPEG reader decode at 1/2, 1/4 or 1/8, so that each edge keeps JPEG_OVERSAMPLING times the target's."""
    turned = find_orientation(image) in TURNED
    width, height = target_size(image.size[::-1] if turned else image.size, spec)
    wanted = (height, width) if turned else (width, height)
    image.draft(None, (JPEG_OVERSAMPLING * wanted[0], JPEG_OVERSAMPLING * wanted[1]))


def _count_bytes(image: PIL.Image.Image, spec: ImageSpec, full_size: Size | None = None) -> int:
    """Return what decoding and resizing takes at its peak; see count_decoded_bytes."""
    size = full_size or image.size
    # Pillow would decode a PNG to find metadata behind its pixels.
    orientation = 1 if image.format == "PNG" and "exif" not in image.info else find_orientation(image)
    target = target_size(size[::-1] if orientation in TURNED else size, spec)
    return count_decoded_bytes(image, size, target, turned=orientation != 1)
