"""How a model wants its images: four kinds, as the manifest describes them."""

from __future__ import annotations

import math
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from lychee_client.manifest.fields import Positive, Sizes, check_ascending

Resampling: TypeAlias = Literal["bicubic", "bilinear", "lanczos"]
# Of an image's pixels: a grid of tiles that has so many is not better for having more.
ENOUGH_COVERED: Final = 0.6


class CropSpec(Struct, frozen=True, tag_field="kind", tag="crop"):
    """Shortest edge resized, then cropped centrally (CLIP, lychee-mini). All sizes in pixels."""

    height: Positive
    width: Positive
    resize_shortest_edge: Positive
    resample: Resampling

    def __post_init__(self) -> None:
        if max(self.height, self.width) > self.resize_shortest_edge:
            raise ValueError(
                f"the image crop is {self.height} x {self.width}, expected at most image.resize_shortest_edge "
                f"({self.resize_shortest_edge})"
            )


class StretchSpec(Struct, frozen=True, tag_field="kind", tag="stretch"):
    """Resized to exactly this size, whatever the aspect ratio (SigLIP, Chinese-CLIP, BLIP). All sizes in pixels."""

    height: Positive
    width: Positive
    resample: Resampling


class PatchSpec(Struct, frozen=True, tag_field="kind", tag="patches"):
    """Resized in its own aspect ratio and cut into patches (Qwen-VL).

    Attributes:
        patch_size: The edge of a patch, in pixels.
        merge_size: How many patches, along each edge of a block, the model merges into one token.
        min_pixels: The fewest pixels that one image has after resizing.
        max_pixels: The most pixels that one image has after resizing. A very long image may have more, because its
            short edge keeps at least one block.
        resample: How pixels are interpolated.
        buckets: The numbers of patches per pair that the client pads to, ascending.
        max_images: The most images of one query-document pair.
        embedding_dim: The length of an image token's embedding.
    """

    patch_size: Positive
    merge_size: Positive
    min_pixels: Positive
    max_pixels: Positive
    resample: Resampling
    buckets: Sizes
    max_images: Positive
    embedding_dim: Positive

    def __post_init__(self) -> None:
        block = self.block_size
        if self.max_pixels < max(self.min_pixels, block**2):
            raise ValueError(
                f"image.max_pixels is {self.max_pixels}; expected at least image.min_pixels ({self.min_pixels}) and a "
                f"block of {block} x {block}"
            )
        check_ascending("image.buckets", self.buckets)
        if any(size % self.merge_size**2 for size in self.buckets):
            raise ValueError(f"image.buckets is {list(self.buckets)}; expected multiples of {self.merge_size**2}")
        if self.buckets[-1] < self.max_pixels // self.patch_size**2:
            raise ValueError(
                f"image.buckets end at {self.buckets[-1]} patches, an image of image.max_pixels ({self.max_pixels}) "
                f"has {self.max_pixels // self.patch_size**2}"
            )

    @property
    def block_size(self) -> int:
        """The edge of the block of patches that becomes one token, in pixels."""
        return self.patch_size * self.merge_size

    @property
    def patch_bytes(self) -> int:
        """The size of one patch in bytes: uint8, (3, patch_size, patch_size)."""
        return 3 * self.patch_size**2

    def resized(self, height: int, width: int, max_pixels: int | None = None) -> tuple[int, int]:
        """Return the height and width nearest to an image's that are whole blocks and within the limits of pixels.

        Args:
            height: The height of the image in pixels.
            width: The width of the image in pixels.
            max_pixels: The most pixels after resizing. None takes the model's own.

        Source: transformers 5.23.0, image_processing_pil_qwen2_vl.py, smart_resize; Python's rounding of halves to
        even.
        """
        block, most = self.block_size, max_pixels or self.max_pixels
        resized = tuple(round(edge / block) * block for edge in (height, width))
        if math.prod(resized) > most:
            scale = math.sqrt(height * width / most)
            resized = tuple(max(block, math.floor(edge / scale / block) * block) for edge in (height, width))
        elif math.prod(resized) < self.min_pixels:
            scale = math.sqrt(self.min_pixels / (height * width))
            resized = tuple(math.ceil(edge * scale / block) * block for edge in (height, width))
        return resized[0], resized[1]

    def count_tokens(self, height: int, width: int) -> int:
        """Return how many tokens of the prompt stand for an image of this height and width after resizing."""
        return height * width // self.block_size**2

    @property
    def max_image_tokens(self) -> int:
        """The most tokens of one image; a very long one may have more."""
        return self.max_pixels // self.block_size**2


class TileSpec(Struct, frozen=True, tag_field="kind", tag="tiles"):
    """Stretched to a grid of square tiles that fits the aspect ratio, which are read one by one (Llama Nemotron VL).

    Where there are several, the whole image follows them, stretched to one tile. A pair has at most one image.

    Attributes:
        tile_size: The edge of a tile, in pixels.
        max_tiles: The most tiles of a grid.
        tile_tokens: How many tokens of the prompt stand for a tile.
        resample: How pixels are interpolated.
        embedding_dim: The length of an image token's embedding.
    """

    tile_size: Positive
    max_tiles: Positive
    tile_tokens: Positive
    resample: Resampling
    embedding_dim: Positive

    @property
    def max_pixels(self) -> int:
        """The most pixels of a grid."""
        return self.max_tiles * self.tile_size**2

    @property
    def min_pixels(self) -> int:
        """The pixels of one tile, the smallest grid."""
        return self.tile_size**2

    @property
    def max_image_tokens(self) -> int:
        """The most tokens of one image."""
        return self.tile_tokens * count_read_tiles(self.max_tiles)

    def resized(self, height: int, width: int, max_pixels: int | None = None) -> tuple[int, int]:
        """Return the height and width of the grid that an image is stretched to.

        A grid is good if its aspect ratio is near the image's, and if it has at least 0.6 times the image's pixels, or
        as many as there can be. Of equally good ones the smallest is taken.

        Args:
            height: The height of the image in pixels.
            width: The width of the image in pixels.
            max_pixels: The most pixels of the grid. None takes the model's own.

        Source: processing_llama_nemotron_vl.py of nvidia/llama-nemotron-rerank-vl-1b-v2, in the order of its
        operations, because rounding decides between grids of nearly equal worth.
        """
        most = self.max_tiles if max_pixels is None else max_pixels // self.tile_size**2
        aspect, area = width / height, width * height
        best, best_worth = (1, 1), -math.inf
        for columns, rows in _list_grids(most):
            ratio = columns / rows
            covered = columns * rows * self.tile_size * self.tile_size / area
            worth = min(covered, ENOUGH_COVERED) * min(ratio / aspect, aspect / ratio)
            if worth > best_worth:
                best, best_worth = (columns, rows), worth
        return best[1] * self.tile_size, best[0] * self.tile_size

    def count_tokens(self, height: int, width: int) -> int:
        """Return how many tokens of the prompt stand for an image of this height and width after resizing."""
        return self.tile_tokens * count_read_tiles(height * width // self.tile_size**2)


def count_read_tiles(tiles: int) -> int:
    """Return how many tiles are read of a grid of so many: one more for the whole image, if there are several."""
    return tiles if tiles == 1 else tiles + 1


def _list_grids(most: int) -> list[tuple[int, int]]:
    """Return columns and rows of all grids of at most so many tiles, the fewest tiles first.

    Those of equally many stand in the order of a set that was filled like the one in the code that the model was
    trained with. It decides where an exactly square image has two grids of equal worth.
    """
    counts = range(1, most + 1)
    grids = {(i, j) for n in counts for i in range(1, n + 1) for j in range(1, n + 1) if i * j <= most}
    return sorted(grids, key=math.prod)


ImageSpec: TypeAlias = CropSpec | StretchSpec | PatchSpec | TileSpec
TokenImageSpec: TypeAlias = PatchSpec | TileSpec
"""Of images whose tokens stand in the prompt, the more the larger they are."""
