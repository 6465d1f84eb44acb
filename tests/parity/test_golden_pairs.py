"""The golden pairs notice what they are for: a wrong template, wrong preprocessing, a wrong model."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from lychee_client import Image
from lychee_client._manifest import ImageSpec
from lychee_export.families import Checkpoint
from lychee_export.manifest import GOLDEN_TOLERANCE
from numpy.typing import NDArray
from tokenizers import Tokenizer

SPEC = ImageSpec(height=224, width=224, resize_shortest_edge=256, resample="bicubic")
Pixels = NDArray[np.uint8]


def largest_error(
    checkpoint: Checkpoint,
    query_prefix: str = "query: ",
    document_prefix: str = "passage: ",
    change_pixels: Callable[[Pixels], Pixels] = lambda pixels: pixels,
    swap_heads: bool = False,
) -> float:
    """Score the golden pairs with one thing done wrong."""
    modules = {piece.signature.name: piece.module for piece in checkpoint.pieces}
    tokenizer = Tokenizer.from_str(checkpoint.tokenizer_json)

    def embed(text: str) -> torch.Tensor:
        ids = torch.tensor([tokenizer.encode(text).ids])
        embedding: torch.Tensor = modules["text_encoder"](ids, torch.ones_like(ids))
        return embedding

    errors = []
    for pair in checkpoint.golden_pairs:
        parts = [embed(query_prefix + pair.query)]
        modality = "text"
        if pair.text is not None:
            parts.append(embed(document_prefix + pair.text))
        if pair.image_png is not None:
            pixels = change_pixels(Image.from_bytes(pair.image_png).load_pixel_values(SPEC))
            parts.append(modules["vision_encoder"](torch.from_numpy(pixels[None].copy())))
            modality = "image" if pair.text is None else "image_text"
        if swap_heads and modality != "image_text":
            modality = {"text": "image", "image": "text"}[modality]
        errors.append(abs(float(modules[f"scoring_head_{modality}"](*parts)) - pair.relevance_score))
    return max(errors)


@torch.no_grad()
def test_right_preprocessing_matches(checkpoint: Checkpoint) -> None:
    assert largest_error(checkpoint) < 1e-5


@pytest.mark.parametrize(
    "fault",
    [
        {"query_prefix": ""},
        {"document_prefix": ""},
        {"query_prefix": "passage: "},
        {"document_prefix": "query: "},
        {"change_pixels": lambda pixels: pixels[:, :, ::-1] // 2},
        {"change_pixels": np.zeros_like},
        {"swap_heads": True},
    ],
    ids=["no query prefix", "no document prefix", "query as passage", "passage as query", "dark", "black", "head"],
)
@torch.no_grad()
def test_fault_breaks_the_tolerance(checkpoint: Checkpoint, fault: dict[str, object]) -> None:
    assert largest_error(checkpoint, **fault) > GOLDEN_TOLERANCE  # type: ignore[arg-type]
