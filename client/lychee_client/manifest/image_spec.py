"""How a model wants its images: three kinds, as the manifest describes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from lychee_client._errors import ContractError
from lychee_client.manifest.fields import get_ascending, get_positive, get_value

RESAMPLING: Final = frozenset({"bicubic", "bilinear", "lanczos"})


@dataclass(frozen=True, slots=True)
class CropSpec:
    """Shortest edge resized, then cropped centrally (CLIP, lychee-mini). All sizes in pixels."""

    height: int
    width: int
    resize_shortest_edge: int
    resample: str

    def __post_init__(self) -> None:
        if max(self.height, self.width) > self.resize_shortest_edge:
            raise ContractError(
                f"the manifest's image crop is {self.height} x {self.width}, expected at most resize_shortest_edge "
                f"({self.resize_shortest_edge})"
            )


@dataclass(frozen=True, slots=True)
class StretchSpec:
    """Resized to exactly this size, whatever the aspect ratio (SigLIP, Chinese-CLIP, BLIP). All sizes in pixels."""

    height: int
    width: int
    resample: str


@dataclass(frozen=True, slots=True)
class PatchSpec:
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

    patch_size: int
    merge_size: int
    min_pixels: int
    max_pixels: int
    resample: str
    buckets: tuple[int, ...]
    max_images: int
    embedding_dim: int

    def __post_init__(self) -> None:
        block = self.block_size
        if self.max_pixels < max(self.min_pixels, block**2):
            raise ContractError(
                f"the manifest's image.max_pixels is {self.max_pixels}; expected at least image.min_pixels "
                f"({self.min_pixels}) and a block of {block} x {block}"
            )
        if any(size % self.merge_size**2 for size in self.buckets):
            raise ContractError(
                f"the manifest's image.buckets is {list(self.buckets)}; expected multiples of {self.merge_size**2}"
            )
        if self.buckets[-1] < self.max_pixels // self.patch_size**2:
            raise ContractError(
                f"the manifest's image.buckets end at {self.buckets[-1]} patches, an image of image.max_pixels "
                f"({self.max_pixels}) has {self.max_pixels // self.patch_size**2}; export the model again"
            )

    @property
    def block_size(self) -> int:
        """The edge of the block of patches that becomes one token, in pixels."""
        return self.patch_size * self.merge_size

    @property
    def patch_bytes(self) -> int:
        """The size of one patch in bytes: uint8, (3, patch_size, patch_size)."""
        return 3 * self.patch_size**2


ImageSpec: TypeAlias = CropSpec | StretchSpec | PatchSpec


def parse_image_spec(data: Mapping[str, Any]) -> ImageSpec:
    """Read the manifest's `image`.

    Raises:
        ContractError: A key is missing or has a value that cannot be, or the client is too old for it.
    """
    kind = get_value(data, "kind", str, "image.")
    resample = get_value(data, "resample", str, "image.")
    if resample not in RESAMPLING:
        raise ContractError(
            f"the manifest's image.resample is {resample!r}, this client has {', '.join(sorted(RESAMPLING))}; "
            "upgrade lychee-rerank-client"
        )

    def sizes(*keys: str) -> dict[str, int]:
        return {key: get_positive(data, key, "image.") for key in keys}

    if kind == "crop":
        return CropSpec(**sizes("height", "width", "resize_shortest_edge"), resample=resample)
    if kind == "stretch":
        return StretchSpec(**sizes("height", "width"), resample=resample)
    if kind == "patches":
        keys = ("patch_size", "merge_size", "min_pixels", "max_pixels", "max_images", "embedding_dim")
        return PatchSpec(**sizes(*keys), resample=resample, buckets=get_ascending(data, "buckets", "image."))
    raise ContractError(
        f"the manifest's image.kind is {kind!r}, this client has crop, stretch and patches; "
        "upgrade lychee-rerank-client"
    )
