"""The golden pairs notice what they are for: a wrong template, wrong preprocessing, a wrong model."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from lychee_client import Image
from lychee_client.manifest import DEFAULT_ERROR_BUDGET
from lychee_export.families import Checkpoint
from numpy.typing import NDArray
from tokenizers import Tokenizer

Pixels = NDArray[np.uint8]


def largest_error(
    checkpoint: Checkpoint,
    embed_text: Callable[[str], torch.Tensor],
    query_prefix: str = "query: ",
    document_prefix: str = "passage: ",
    change_pixels: Callable[[Pixels], Pixels] = lambda pixels: pixels,
    swap_heads: bool = False,
    swap_parts: bool = False,
) -> float:
    """Score the golden pairs with one thing done wrong."""
    modules = {piece.signature.name: piece.module for piece in checkpoint.pieces}
    spec = checkpoint.card.spec.image
    errors = []
    for pair in checkpoint.make_reference().golden_pairs:
        parts = [embed_text(query_prefix + str(pair.query.text))]
        modality = "text"
        if pair.document.text is not None:
            parts.append(embed_text(document_prefix + pair.document.text))
        if pair.document.image_png is not None:
            pixels = change_pixels(Image.from_bytes(pair.document.image_png).prepare(spec).pixel_values)
            parts.append(modules["vision_encoder"](torch.from_numpy(pixels[None].copy())))
            modality = "image" if pair.document.text is None else "image_text"
        if swap_heads and modality != "image_text":
            modality = {"text": "image", "image": "text"}[modality]
        if swap_parts and modality == "image_text":
            parts[1:] = parts[:0:-1]
        relevance_score, _ = modules["scoring_heads"].heads[modality](*parts)
        errors.append(abs(float(relevance_score) - pair.relevance_score))
    return max(errors)


@torch.no_grad()
def test_right_preprocessing_matches(checkpoint: Checkpoint, embed_text: Callable[[str], torch.Tensor]) -> None:
    assert largest_error(checkpoint, embed_text) < 1e-5


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
        {"swap_parts": True},
    ],
    ids=[
        "no query prefix",
        "no document prefix",
        "query as passage",
        "passage as query",
        "dark",
        "black",
        "head",
        "image for text",
    ],
)
@torch.no_grad()
def test_fault_breaks_the_tolerance(
    checkpoint: Checkpoint, embed_text: Callable[[str], torch.Tensor], fault: dict[str, object]
) -> None:
    assert largest_error(checkpoint, embed_text, **fault) > DEFAULT_ERROR_BUDGET  # type: ignore[arg-type]


@pytest.mark.parametrize("removed", [[], [0], [1]], ids=["none", "first alone", "second alone"])
@torch.no_grad()
def test_direction_that_is_not_removed_breaks_the_tolerance(checkpoint: Checkpoint, removed: list[int]) -> None:
    encoder = copy.deepcopy(next(piece.module for piece in checkpoint.pieces if piece.signature.name == "text_encoder"))
    encoder.removed_directions = encoder.removed_directions[removed]
    tokenizer = Tokenizer.from_str(checkpoint.card.tokenizer_json)

    def embed_text(text: str) -> torch.Tensor:
        ids = torch.tensor([tokenizer.encode(text).ids])
        embedding: torch.Tensor = encoder(ids, torch.ones_like(ids))
        return embedding

    assert largest_error(checkpoint, embed_text) > DEFAULT_ERROR_BUDGET
