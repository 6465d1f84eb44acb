"""Texts and images from which the ranges of activations are taken, for static int8."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from lychee_export.errors import CheckpointError

__all__ = ["RangeData", "augment", "bundled_data", "read_data"]

_MAX_TEXTS = 400
_MAX_IMAGES = 64
_IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})

_NOUNS = (
    ("cat", "猫"),
    ("coffee", "咖啡"),
    ("rocket", "火箭"),
    ("palace", "宫殿"),
    ("flower", "花"),
    ("camera", "相机"),
    ("coin", "硬币"),
    ("boat", "船"),
    ("apple", "苹果"),
    ("river", "河流"),
    ("chair", "椅子"),
    ("invoice", "发票"),
    ("phone", "手机"),
    ("doctor", "医生"),
    ("garden", "花园"),
    ("train", "火车"),
    ("bread", "面包"),
    ("mountain", "山"),
    ("shoe", "鞋子"),
    ("window", "窗户"),
)
_ENGLISH = (
    "{}",
    "a small {} on a table",
    "best {} for beginners",
    "How do I return the {} that I bought last week?",
    "The {} came two days late and the box was open; I want my 39.90 euros back!",
    "In the morning the old {} stood in the light, and nobody in the village knew who had left it there overnight. By "
    "noon the whole street had come to see it, and the mayor asked for silence.",
)
_CHINESE = (
    "{}",
    "怎么退换{}？",
    "桌子上有一个小小的{}。",
    "这款{}质量很好，物流也快，推荐购买。",
    "订单编号 20240517 的{}破损，请在三个工作日内联系客服处理。",
    "清晨的阳光照在{}上，村里没有人知道是谁把它留在那里的。到了中午，整条街的人都来看热闹，孩子们围成一圈，谁也不肯先走。",
)
_LONG_TEXTS = 12
_PARTS_OF_LONG = 5


@dataclass(frozen=True)
class RangeData:
    """What a deployment reads, or something like it.

    Args:
        texts: The queries and documents, of several lengths.
        images: The images; None takes the family's own sample images.
    """

    texts: tuple[str, ...]
    images: tuple[Image.Image, ...] = ()


def bundled_data() -> RangeData:
    """Write 252 texts in Chinese and English, from one word to two hundred."""
    texts = [pattern.format(english) for english, _ in _NOUNS for pattern in _ENGLISH]
    texts += [pattern.format(chinese) for _, chinese in _NOUNS for pattern in _CHINESE]
    rng = np.random.default_rng(0)
    long = [" ".join(rng.choice(texts, _PARTS_OF_LONG, replace=False)) for _ in range(_LONG_TEXTS)]
    return RangeData((*texts, *long))


def read_data(folder: Path) -> RangeData:
    """Read the images of a folder, and its ``.txt`` files: one text a line, UTF-8.

    Of more than 400 texts or 64 images, so many are chosen, the same every time. Without texts the bundled ones are
    taken, without images the family's.

    Raises:
        CheckpointError: There is no such folder, a file cannot be read, or there is nothing in it.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"the range data {folder} is no folder; expected one with images and .txt files of a text a line"
        )
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    rng = np.random.default_rng(0)
    lines = [line for path in files if path.suffix.lower() == ".txt" for line in _read_lines(path)]
    pictures = [path for path in files if path.suffix.lower() in _IMAGE_SUFFIXES]
    if not lines and not pictures:
        raise CheckpointError(
            f"the range data {folder} holds no text and no image; expected .txt files of a text a line, or "
            f"images ({', '.join(sorted(_IMAGE_SUFFIXES))})"
        )
    texts = tuple(lines[index] for index in _choose(rng, len(lines), _MAX_TEXTS)) or bundled_data().texts
    return RangeData(texts, tuple(_open(pictures[index]) for index in _choose(rng, len(pictures), _MAX_IMAGES)))


def augment(images: NDArray[np.uint8], count: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the images, and then crops of them, enlarged, mirrored, darker and brighter, up to a number of images.

    Args:
        images: The images, uint8, (num_images, 3, height, width).
        count: How many images to yield in all, the given ones included.

    Yields:
        uint8, (3, height, width).
    """
    rng = np.random.default_rng(0)
    for index in range(count):
        pixels = images[index % len(images)].transpose(1, 2, 0)
        if index >= len(images):
            height, width = pixels.shape[:2]
            share = rng.uniform(0.5, 1.0)
            left, top = (int(rng.uniform(0, 1 - share) * size) for size in (width, height))
            box = (left, top, left + max(1, int(share * width)), top + max(1, int(share * height)))
            crop = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC, box))
            turned = crop[:, ::-1] if rng.random() < 0.5 else crop
            pixels = np.clip((turned - 128.0) * rng.uniform(0.7, 1.2) + 128 + rng.uniform(-30, 30), 0, 255)
        yield np.ascontiguousarray(pixels.astype(np.uint8).transpose(2, 0, 1))


def _choose(rng: np.random.Generator, available: int, most: int) -> list[int]:
    return sorted(rng.choice(available, min(available, most), replace=False).tolist())


def _read_lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"cannot read the range texts in {path}: {error}; expected UTF-8") from error


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise CheckpointError(f"cannot read the range image {path}: {error}; remove or repair it") from error
