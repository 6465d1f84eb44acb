"""What a deployment admits: the user's choice between quality, speed and memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["PROFILES", "Limits"]


@dataclass(frozen=True)
class Limits:
    """Bounds of one export. A family whose checkpoint has a smaller bound of its own keeps that.

    Args:
        max_tokens: The length of the longest sequence in tokens, those of images included.
        max_images: The most images of one query-document pair.
        max_img_size: The most pixels of one image, as the side of a square; for models that read images in their own
            aspect ratio.
        text_batch: The most rows of one request without images.
        image_batch: The most rows of one request with images.
    """

    max_tokens: int = 2048
    max_images: int = 2
    max_img_size: int = 512
    text_batch: int = 32
    image_batch: int = 16

    def __post_init__(self) -> None:
        for name, least in (("max_tokens", 64), ("max_images", 1), ("max_img_size", 56)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least {least}")
        if min(self.text_batch, self.image_batch) < 1:
            raise ValueError(f"batches are {self.text_batch} and {self.image_batch}, expected at least 1")


PROFILES: Mapping[str, Limits] = {
    "default": Limits(),
    "small": Limits(max_tokens=512, max_images=1, max_img_size=256, text_batch=8, image_batch=2),
    "full": Limits(max_tokens=3200, max_images=2, max_img_size=1001, text_batch=32, image_batch=8),
}
"""Values of ``--profile``. "full" admits what lychee-rerank-mm was trained with: 3,200 tokens, and images of at most
1,280 blocks of 28 x 28 pixels, which is a square of 1,001."""
