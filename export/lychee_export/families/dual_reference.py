"""Rows for validation and golden pairs of a dual encoder, computed by its reference implementation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from ..signature import Tensors
from .family import GoldenPair, Reference
from .samples import QUERIES, TEXTS, decode
from .text_format import TextFormat, tokenize

__all__ = ["ReferenceEncoders", "make_reference"]

_GOLDEN_TEXT_PAIRS = ((2, 0), (0, 6), (1, 2), (1, 4))
"""Indices of (query, text) of the golden pairs: two languages, matches and a mismatch."""
_GOLDEN_IMAGE_PAIRS = ((0, 0), (1, 0), (1, 1), (4, 1))
"""Indices of (query, image) of the golden pairs. With lychee-mini's images, a cat and a cup of coffee, the last pair
scores 0.69: unlike a clear match, it moves when the pixels are only a little wrong."""
_GOLDEN_IMAGE_TEXT_PAIR = (1, 1, 2)
"""Indices of query, image and text."""


@dataclass(frozen=True)
class ReferenceEncoders:
    """The reference implementation of the two encoders.

    Args:
        embed_texts: Texts, prefixes included, to float32, (batch_size, embedding_dim), rows of unit length.
        embed_image: An image to float32, (1, embedding_dim), of unit length.
        pixel_values: uint8, (batch_size, 3, height, width): images as the client sends them.
        pngs: Two small images at least.
    """

    embed_texts: Callable[[Sequence[str]], Tensor]
    embed_image: Callable[[Image.Image], Tensor]
    pixel_values: NDArray[np.uint8]
    pngs: Sequence[bytes]


def make_reference(
    text: TextFormat, heads: Mapping[str, nn.Module], tokenizer_json: str, encoders: ReferenceEncoders
) -> Reference:
    """Compute the rows for validation and the golden pairs.

    Args:
        text: How texts are made.
        heads: By modality of the document.
        tokenizer_json: A ``tokenizers`` file.
        encoders: The reference implementation.
    """
    return Reference(_ensemble_rows(text, tokenizer_json, encoders), _golden_pairs(text, heads, encoders))


def _ensemble_rows(text: TextFormat, tokenizer_json: str, encoders: ReferenceEncoders) -> dict[str, Tensors]:
    """Make one row for each text; queries and images repeat in turn."""
    count = len(TEXTS)
    queries = [text.query_prefix + QUERIES[index % len(QUERIES)] for index in range(count)]
    query: Tensors = {"query_embedding": encoders.embed_texts(queries).numpy()}
    texts = tokenize(tokenizer_json, text, [text.document_prefix + document for document in TEXTS])
    pixels: Tensors = {"pixel_values": encoders.pixel_values[np.arange(count) % len(encoders.pixel_values)]}
    return {
        "rerank_text": query | texts,
        "rerank_image": query | pixels,
        "rerank_image_text": query | texts | pixels,
    }


def _golden_pairs(
    text: TextFormat, heads: Mapping[str, nn.Module], encoders: ReferenceEncoders
) -> tuple[GoldenPair, ...]:
    """Score the golden pairs; the images are small, so that the manifest is."""
    pngs = encoders.pngs
    pairs = [GoldenPair(QUERIES[query], 0.0, TEXTS[document]) for query, document in _GOLDEN_TEXT_PAIRS]
    pairs += [GoldenPair(QUERIES[query], 0.0, None, pngs[image]) for query, image in _GOLDEN_IMAGE_PAIRS]
    query, image, document = _GOLDEN_IMAGE_TEXT_PAIR
    pairs.append(GoldenPair(QUERIES[query], 0.0, TEXTS[document], pngs[image]))
    return tuple(_score(text, heads, encoders, pair) for pair in pairs)


def _score(
    text: TextFormat, heads: Mapping[str, nn.Module], encoders: ReferenceEncoders, pair: GoldenPair
) -> GoldenPair:
    embeddings = [encoders.embed_texts([f"{text.query_prefix}{pair.query}"])]
    if pair.text is not None:
        embeddings.append(encoders.embed_texts([text.document_prefix + pair.text]))
    if pair.image_png is not None:
        embeddings.append(encoders.embed_image(decode(pair.image_png)))
    modality = "_".join(name for name, part in (("image", pair.image_png), ("text", pair.text)) if part is not None)
    with torch.no_grad():
        relevance_score, _ = heads[modality](*embeddings)
    return GoldenPair(pair.query, round(float(relevance_score), 6), pair.text, pair.image_png)
