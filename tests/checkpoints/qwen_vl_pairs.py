"""Pairs on which the Qwen-VL rerankers are compared: both languages, odd sizes and shapes, none to three images."""

from __future__ import annotations

import numpy as np
from lychee_client import Image as ClientImage
from lychee_client import Images, ImageText
from lychee_client.types import Input
from PIL import Image

from checkpoints.qwen_vl_reference import Part


def make_image(width: int, height: int) -> Image.Image:
    """Draw coarse noise, so that neighbouring pixels are alike as in photos."""
    coarse = np.random.default_rng(width * height).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height))


SQUARE, WIDE, TALL = make_image(224, 224), make_image(300, 40), make_image(37, 190)
TINY, WINDOWS, PHOTO = make_image(1, 1), make_image(112, 336), make_image(640, 480)
"""Of ``WINDOWS`` every side is a whole number of attention windows."""

PAIRS = [
    (Part("a cat"), Part("猫", PHOTO)),
    (Part("a"), Part("b")),
    (Part("怎样泡一杯好咖啡？", WIDE), Part("a red cup of coffee", WINDOWS)),
    (Part(None, TALL), Part(None, SQUARE)),
    (Part("火箭如何进入轨道？"), Part("how do rockets reach orbit? " * 12)),
    (Part("a photo of a cat on a sofa", TINY), Part("一只猫躺在沙发上。")),
    (Part("一"), Part(None, WIDE)),
]
IMAGE_PAIRS = [(Part("猫"), Part(None, image)) for image in (PHOTO, WIDE, WINDOWS, TINY, SQUARE, TALL, PHOTO)]
SHORT_PAIRS = [
    (Part("a"), Part(None, WIDE)),
    (Part("猫"), Part("b")),
    (Part(None, TALL), Part("一只猫躺在沙发上。")),
    (Part(None, SQUARE), Part(None, TINY)),
    (Part("a red cup of coffee"), Part("how do rockets reach orbit? " * 12)),
    (Part("咖啡"), Part(None, PHOTO)),
    (Part(None, WINDOWS), Part(None, WIDE)),
]
_SEVERAL_IMAGES = [
    (Part("a cat", TALL), Part("猫", WIDE, (SQUARE,))),
    (Part("a"), Part("b")),
    (Part(None, WIDE, (TINY,)), Part("one more", WINDOWS)),
    (Part("咖啡"), Part(None, TALL, (TALL, PHOTO))),
    (Part(None, TINY, (TALL, WIDE)), Part("三张图")),
    (Part("一"), Part(None, WIDE)),
]

PAIRS_OF = {"jina_m0": SHORT_PAIRS, "monoqwen": IMAGE_PAIRS, "qwen2_5_vl": PAIRS, "qwen3_vl": PAIRS}
"""What each reranker reads."""

SEVERAL_IMAGES_OF = {
    "jina_m0": [pair for pair in _SEVERAL_IMAGES if not any(part.text and part.images for part in pair)],
    "qwen2_5_vl": _SEVERAL_IMAGES,
    "qwen3_vl": _SEVERAL_IMAGES,
}
"""Pairs in which a query or a document has several images; the other ones are company for a batch."""


def to_input(part: Part) -> Input:
    """Give a query or document to the client."""
    if not part.images:
        assert part.text is not None
        return part.text
    images = [ClientImage.from_pil(image) for image in part.images]
    image = Images(images) if len(images) > 1 else images[0]
    return image if part.text is None else ImageText(image, part.text)
