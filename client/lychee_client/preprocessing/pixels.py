"""From a decoded image to `pixel_values`: four ways, each bit-equal to the reference's.

The resizing is Pillow's, as the reference's is, on the same pixels to the same size; so nothing is rounded anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import PIL.Image

from lychee_client._errors import InvalidInputError
from lychee_client.manifest.image_spec import CropSpec, ImageSpec, PatchSpec, StretchSpec, TileSpec

MAX_CROP_ASPECT_RATIO: Final = 4
STRIP_PIXELS: Final = 2**20  # are converted at once
# transformers 5.23.0, image_processing_pil_qwen2_vl.py, smart_resize: it raises a ValueError beyond.
MAX_PATCH_ASPECT_RATIO: Final = 200
_RESAMPLING: Final[Mapping[str, PIL.Image.Resampling]] = {
    "bicubic": PIL.Image.Resampling.BICUBIC,
    "bilinear": PIL.Image.Resampling.BILINEAR,
    "lanczos": PIL.Image.Resampling.LANCZOS,
}

Pixels: TypeAlias = npt.NDArray[np.uint8]
Size: TypeAlias = tuple[int, int]


def target_size(size: Size, spec: ImageSpec) -> Size:
    """Return width and height that an image is resized to, before any crop.

    Args:
        size: The width and height of the original, upright, in pixels.
        spec: The manifest's image specification.

    Raises:
        InvalidInputError: The image is too long for the model.
    """
    width, height = size
    if isinstance(spec, StretchSpec):
        return spec.width, spec.height
    if isinstance(spec, CropSpec):
        short, edge = min(size), spec.resize_shortest_edge
        scaled_long = int(edge * min(max(size), MAX_CROP_ASPECT_RATIO * short) / short)
        return (edge, scaled_long) if width <= height else (scaled_long, edge)
    if isinstance(spec, TileSpec):
        grid_height, grid_width = spec.resized(height, width)
        return grid_width, grid_height
    resized_height, resized_width = smart_resize(height, width, spec)
    return resized_width, resized_height


def preprocess(
    image: PIL.Image.Image,
    spec: ImageSpec,
    size: Size | None = None,
) -> tuple[Pixels, Size]:
    """Resize an image and lay out its pixels as the model wants them.

    Args:
        image: The decoded image, of any mode with 8 bits.
        spec: The manifest's image specification.
        size: The width and height of the original, where the image was decoded smaller. None takes the image's own.

    Returns:
        uint8, C-contiguous: (3, height, width), (num_patches, 3 * patch_size**2) for a PatchSpec, or (num_tiles, 3,
        tile_size, tile_size) for a TileSpec; and width and height that the image was resized to, before any crop.

    Raises:
        InvalidInputError: The image is too long for the model.
    """
    resized_to = target_size(size or image.size, spec)
    if isinstance(spec, CropSpec):
        return _crop(image, spec, resized_to), resized_to
    resized = np.asarray(resize(image, resized_to, spec.resample))  # (height, width, 3)
    if isinstance(spec, StretchSpec):
        return _channels_first(resized), resized_to
    if isinstance(spec, TileSpec):
        tiles = cut_tiles(resized, spec)
        if len(tiles) > 1:
            whole = np.asarray(resize(image, (spec.tile_size, spec.tile_size), spec.resample))
            tiles = np.concatenate([tiles, _channels_first(whole)[None]])
        return tiles, resized_to
    return patchify(resized, spec), resized_to


def to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """Convert any mode of 8 bits to RGB, each pixel for itself, transparency on white."""
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        white = PIL.Image.new("RGBA", with_alpha.size, "white")
        return PIL.Image.alpha_composite(white, with_alpha).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def resize(image: PIL.Image.Image, size: Size, resample: str) -> PIL.Image.Image:
    """Return what `to_rgb(image).resize(size)` of Pillow 12 does to the bit, a few rows of a large image at a time.

    That resizes in width first and rounds in between, so the rows of that step do not depend on each other. Pillow 13
    begins with the edge that leaves less to do, which gives other pixels, so both steps are asked for here.
    """
    resampling = _RESAMPLING[resample]
    rows = max(1, STRIP_PIXELS // image.width)
    if rows >= image.height:
        return to_rgb(image).resize((size[0], image.height), resampling).resize(size, resampling)
    narrow = PIL.Image.new("RGB", (size[0], image.height))
    for top in range(0, image.height, rows):
        strip = to_rgb(image.crop((0, top, image.width, min(top + rows, image.height))))
        narrow.paste(strip.resize((size[0], strip.height), resampling), (0, top))
    return narrow.resize(size, resampling)


def _crop(image: PIL.Image.Image, spec: CropSpec, resized_to: Size) -> Pixels:
    """Resize the shortest edge and crop the centre.

    Equal to transformers' CLIPImageProcessorPil with rescaling and normalization off, up to an aspect ratio of 4.
    Beyond it the image is first cropped centrally to that ratio, which is the same up to a shift of less than a
    pixel: what is cut away could not reach the final crop, and resizing all of it may not fit into memory (a
    20,000 x 1 image would become 5,120,000 x 256).

    Source: transformers 5.23.0, image_transforms.py, get_resize_output_image_size and center_crop.
    """
    longest = MAX_CROP_ASPECT_RATIO * min(image.size)
    image = _crop_centre(image, min(image.width, longest), min(image.height, longest))
    resized = resize(image, resized_to, spec.resample)
    return _channels_first(np.asarray(_crop_centre(resized, spec.width, spec.height)))


def _crop_centre(image: PIL.Image.Image, width: int, height: int) -> PIL.Image.Image:
    if image.size == (width, height):
        return image
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _channels_first(pixels: Pixels) -> Pixels:
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def smart_resize(height: int, width: int, spec: PatchSpec) -> Size:
    """Return the height and width nearest to the original's that are whole blocks and within the limits of pixels.

    Raises:
        InvalidInputError: One edge is more than 200 times the other.
    """
    short, long = min(height, width), max(height, width)
    if long > MAX_PATCH_ASPECT_RATIO * short:
        raise InvalidInputError(
            f"the image has {width} x {height} pixels, one edge {long / short:.0f} times the other; the model reads at "
            f"most {MAX_PATCH_ASPECT_RATIO} times; crop the image"
        )
    return spec.resized(height, width)


def cut_tiles(pixels: Pixels, spec: TileSpec) -> Pixels:
    """Cut an image into tiles, row by row.

    Args:
        pixels: The resized image: uint8, (height, width, 3), both edges whole tiles.
        spec: The manifest's image specification.

    Returns:
        uint8, (num_tiles, 3, tile_size, tile_size).
    """
    edge = spec.tile_size
    rows, columns = (side // edge for side in pixels.shape[:2])
    cut = pixels.reshape(rows, edge, columns, edge, 3).transpose(0, 2, 4, 1, 3)  # (rows, columns, 3, edge, edge)
    return np.ascontiguousarray(cut).reshape(-1, 3, edge, edge)


def patchify(pixels: Pixels, spec: PatchSpec) -> Pixels:
    """Cut an image into patches, those that the model merges into one token next to each other.

    Args:
        pixels: The resized image: uint8, (height, width, 3), both edges whole blocks.
        spec: The manifest's image specification.

    Returns:
        uint8, (num_patches, 3 * patch_size**2): one frame; channels, rows and columns within a patch.
    Source: transformers 5.23.0, image_processing_pil_qwen2_vl.py, patchify.
    """
    rows, columns = (edge // spec.block_size for edge in pixels.shape[:2])
    merge, patch = spec.merge_size, spec.patch_size
    cut = pixels.reshape(rows, merge, patch, columns, merge, patch, 3)
    ordered = cut.transpose(0, 3, 1, 4, 6, 2, 5)  # (rows, columns, merge, merge, 3, patch, patch)
    return np.ascontiguousarray(ordered).reshape(-1, spec.patch_bytes)
