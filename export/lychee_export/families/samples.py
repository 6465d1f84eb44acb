"""Queries, texts and images on which exports are compared with their reference, in Chinese and English."""

from __future__ import annotations

import io

import numpy as np
from lychee_client.manifest import PAGE
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = ["QUERIES", "TEXTS", "decode", "draw_page", "encode", "extreme_images", "sample_images"]

QUERIES = ("一只猫", "hot drink in the morning", "怎么退款", "a yellow flower", "breakfast table")
TEXTS = (
    "退款流程：在订单页面点击申请退款",
    "The cat sleeps on the sofa all day.",
    "A cup of espresso wakes you up.",
    "火箭从发射台升空",
    "The palace was built in the fifteenth century.",
    "Dahlias bloom in late summer and come in yellow, orange and red.",
    "小猫喜欢晒太阳",
)

_PRINT_SCALE = 2
"""Pillow's own font is a bitmap of letters 7 pixels high; so many times that are about 8 points on the page."""

_SIZES = ((96, 96), (120, 80), (72, 112))
_COLOURS = (((30, 60, 160), (240, 210, 40)), ((70, 120, 60), (200, 40, 50)), ((225, 225, 215), (90, 50, 30)))
"""Of each image's background and of the shape on it."""


def sample_images() -> tuple[Image.Image, ...]:
    """Draw images of several aspect ratios: a disc, a square and a ring, on a background that grows brighter."""
    return tuple(
        Image.fromarray(_draw(index, size, *colours))
        for index, (size, colours) in enumerate(zip(_SIZES, _COLOURS, strict=True))
    )


def draw_page() -> Image.Image:
    """Draw an A4 page of fine print in black and white: what a smaller resolution blurs.

    The letters are a bitmap that Pillow holds: the same pixels on every machine.
    """
    font = ImageFont.load_default_imagefont()
    width, height = (edge // _PRINT_SCALE for edge in PAGE)
    page = Image.new("1", (width, height), 1)
    draw = ImageDraw.Draw(page)
    sentences = [text for text in (*QUERIES, *TEXTS) if text.isascii()]
    margin, line_height = width // 12, 2 * font.getbbox("A")[3]
    for line, top in enumerate(range(margin, height - margin, line_height), start=1):
        words = (sentences[(line + offset) % len(sentences)] for offset in range(2))
        draw.text((margin, top), f"{line}. {' '.join(words)}", fill=0, font=font)
    return page.resize(PAGE, Image.Resampling.NEAREST)


def extreme_images(width: int, height: int) -> tuple[Image.Image, ...]:
    """Draw images that make large values in vision encoders: a checkerboard, a printed page, a grainy photo.

    A checkerboard of 56 pixels made Qwen2.5-VL's overflow: https://github.com/ollama/ollama/pull/18070.
    """
    x, y = np.arange(width)[None, :], np.arange(height)[:, None]
    board = (x // 56 + y // 56) % 2 * 255  # (height, width)
    grain = np.random.default_rng(0).integers(-60, 61, (height, width, 3))
    photo = 128 + 60 * np.sin(x / 40 + y / 90)[..., None] + grain
    drawn = (np.broadcast_to(board[..., None], photo.shape), photo)
    checkerboard, grainy = (Image.fromarray(pixels.clip(0, 255).astype(np.uint8)) for pixels in drawn)
    return checkerboard, draw_page().convert("RGB").resize((width, height)), grainy


def encode(image: Image.Image) -> bytes:
    """Write a PNG file."""
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def decode(png: bytes) -> Image.Image:
    """Read a PNG file that `encode` wrote."""
    return Image.open(io.BytesIO(png))


def _draw(
    shape: int, size: tuple[int, int], background: tuple[int, int, int], colour: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """Return uint8, (height, width, 3)."""
    width, height = size
    x = np.linspace(-1, 1, width)[None, :]  # (1, width)
    y = np.linspace(-1, 1, height)[:, None]  # (height, 1)
    distance = (x**2 + y**2) ** 0.5  # (height, width)
    inside = (distance < 0.6, np.maximum(np.abs(x), np.abs(y)) < 0.5, (distance > 0.4) & (distance < 0.8))[shape]
    brightness = (0.75 + 0.125 * (x + y))[..., None]  # (height, width, 1)
    pixels: NDArray[np.float64] = np.where(inside[..., None], np.array(colour), np.array(background)) * brightness
    return pixels.astype(np.uint8)
