"""What a model reads of a page and of a text, beside what its checkpoint would: an export may admit less."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from lychee_client.manifest.image_spec import TokenImageSpec
from lychee_client.manifest.manifest import ModelSpec

PAGE: Final = (1654, 2339)
"""Width and height of an A4 page at 200 dots per inch, in pixels."""


def describe_reading(spec: ModelSpec) -> Iterator[str]:
    """Yield how large a page and how long a text the model reads, and what the export takes away of either.

    Of a model that reads no images, the text alone. Nothing for one that stretches or crops every image to one size,
    nor for what older exporters wrote.
    """
    own = spec.checkpoint_limits
    if own is None or not isinstance(spec.image, TokenImageSpec | None):
        return
    if spec.image is not None and own.max_pixels is not None:
        here, there = (_describe_page(spec.image, most) for most in (spec.image.max_pixels, own.max_pixels))
        instead = "" if here == there else f" instead of {there}; a larger --max-img-size at export keeps more of it"
        yield f"images: a page of {PAGE[0]:,} x {PAGE[1]:,} pixels is read as {here}{instead}"
    longest = spec.text.max_tokens
    instead = (
        ""
        if longest >= own.max_tokens
        else f" instead of {own.max_tokens:,}; a larger --max-tokens at export keeps more"
    )
    parts = "query and document" if spec.image is None else "query, document and their images"
    if spec.late_interaction is not None:
        yield f"queries: at most {spec.late_interaction.query_tokens} tokens"
        parts = "a document"
    yield f"texts: at most {longest:,} tokens of {parts}{instead}"


def _describe_page(image: TokenImageSpec, max_pixels: int) -> str:
    height, width = image.resized(PAGE[1], PAGE[0], max_pixels)
    return f"{width:,} x {height:,} ({image.count_tokens(height, width):,} tokens)"
