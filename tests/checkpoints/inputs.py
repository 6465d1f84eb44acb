"""Texts and images for comparisons: two languages, all lengths, odd sizes and aspect ratios."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

TEXTS = (
    "a",
    "The CAT sleeps on the sofa, all day.",
    "小猫喜欢晒太阳！",
    "A cup of COFFEE -- hot, yellow; don't spill it (really)?",
    "退款流程：在订单页面点击申请退款",
    "the " * 9,
    "一只猫 and the yellow flower " * 30,
)
"""The last one is longer than any limit."""

_SIZES = ((32, 32), (48, 31), (23, 90), (200, 51), (1, 1), (64, 40), (5, 3))


def make_images(seed: int = 0) -> list[Image.Image]:
    """Draw coarse noise of every size, so that neighbouring pixels are alike as in photos."""
    rng = np.random.default_rng(seed)
    coarse = [rng.integers(0, 256, (3, 4, 3), dtype=np.uint8) for _ in _SIZES]
    return [Image.fromarray(pixels).resize(size) for pixels, size in zip(coarse, _SIZES, strict=True)]


def read_labelled_texts() -> dict[str, list[tuple[str, bool]]]:
    """Return each labelled query in English or Chinese with its documents, and whether each is relevant."""
    path = Path(__file__).parents[2] / "examples" / "calibration" / "texts.csv"
    labelled: dict[str, list[tuple[str, bool]]] = defaultdict(list)
    for row in csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()):
        labelled[row["query"]].append((row["text"], row["relevant"] == "1"))
    return labelled
