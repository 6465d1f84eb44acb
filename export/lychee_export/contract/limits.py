"""What a deployment admits: the user's choice between quality, speed and memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["DEFAULT_GPU_MEMORY_GB", "PROFILES", "Limits"]

DEFAULT_GPU_MEMORY_GB = 24.0
"""Of an RTX 3090 or 4090, an A10 or an L4."""


@dataclass(frozen=True)
class Limits:
    """Bounds of one export. A family whose checkpoint has a smaller bound of its own keeps that.

    Args:
        max_tokens: The length of the longest sequence in tokens, those of images included. None takes what the
            checkpoint reads.
        max_images: The most images of one query-document pair.
        max_img_size: The most pixels of one image, as the side of a square; for models that read images in their own
            aspect ratio. None takes what the checkpoint reads.
        text_batch: The most rows of one request without images.
        image_batch: The most rows of one request with images.
    """

    max_tokens: int | None = None
    max_images: int = 2
    max_img_size: int | None = None
    text_batch: int = 32
    image_batch: int = 16

    def __post_init__(self) -> None:
        for name, least in (("max_tokens", 64), ("max_images", 1), ("max_img_size", 56)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} is {value}, expected at least {least}")
        if min(self.text_batch, self.image_batch) < 1:
            raise ValueError(f"batches are {self.text_batch} and {self.image_batch}, expected at least 1")

    @property
    def largest_batch(self) -> int:
        """The most rows of one request, whatever is in them."""
        return max(self.text_batch, self.image_batch)


PROFILES: Mapping[str, Limits] = {
    "default": Limits(),
    "medium": Limits(max_tokens=2048, max_img_size=512),
    "small": Limits(max_tokens=512, max_images=1, max_img_size=256, text_batch=8, image_batch=2),
    "full": Limits(image_batch=8),
}
"""Values of ``--profile``. "default" and "full" admit what the checkpoint reads, "full" fewer pages at once; the others
take resolution and length away, and memory and time with them."""
