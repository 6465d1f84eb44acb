"""Rows for validation and golden pairs of a dual encoder, computed by its reference implementation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from lychee_client.manifest import GoldenInput, GoldenPair
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from lychee_export.contract.signature import Tensors
from lychee_export.families.family import Reference, round_score, round_scores
from lychee_export.families.samples import QUERIES, TEXTS, decode
from lychee_export.families.text_format import TextFormat, tokenize

__all__ = ["ReferenceEncoders", "make_reference"]

_GOLDEN_TEXT_PAIRS = ((2, 0), (0, 6), (1, 2), (1, 4))
"""Indices of (query, text) of the golden pairs: two languages, matches and a mismatch. With lychee-mini the second pair
scores 0.38: unlike a clear match, it moves when the tokens or the embedding are only a little wrong."""
_GOLDEN_IMAGE_PAIRS = ((0, 0), (1, 0), (1, 1), (4, 1))
"""Indices of (query, image) of the golden pairs. With lychee-mini's images, a cat and a cup of coffee, the last pair
scores 0.58: unlike a clear match, it moves when the pixels are only a little wrong."""
_GOLDEN_IMAGE_TEXT_PAIR = (1, 1, 1)
"""Indices of query, image and text. The image fits and the text does not: with lychee-mini the pair scores 0.75, and a
head that takes one for the other, or leaves one out, scores it otherwise. A pair whose parts agree would hide that."""


@dataclass(frozen=True)
class ReferenceEncoders:
    """The reference implementation of the two encoders. Embeddings are float32 or float64.

    Args:
        embed_texts: Embeds texts, prefixes included: (batch_size, embedding_dim), rows of unit length.
        embed_image: Embeds an image: (1, embedding_dim), of unit length.
        pixel_values: The images as the client sends them: uint8, (batch_size, 3, height, width).
        image_embeddings: The embeddings of the same images: (batch_size, embedding_dim), rows of unit length.
        pngs: At least two small images, as PNG files.
    """

    embed_texts: Callable[[Sequence[str]], Tensor]
    embed_image: Callable[[Image.Image], Tensor]
    pixel_values: NDArray[np.uint8]
    image_embeddings: Tensor
    pngs: Sequence[bytes]


def make_reference(
    text: TextFormat, heads: Mapping[str, nn.Module], tokenizer_json: str, encoders: ReferenceEncoders
) -> Reference:
    """Compute the rows for validation and the golden pairs.

    Args:
        text: How texts are made.
        heads: The heads by modality of the document.
        tokenizer_json: The content of a ``tokenizers`` file.
        encoders: The reference implementation.
    """
    return Reference(
        _ensemble_rows(text, tokenizer_json, encoders),
        _golden_pairs(text, heads, encoders),
        _scored_rows(text, heads, tokenizer_json, encoders),
    )


def _ensemble_rows(text: TextFormat, tokenizer_json: str, encoders: ReferenceEncoders) -> dict[str, Tensors]:
    """Make one row for each text; queries and images repeat in turn."""
    count = len(TEXTS)
    queries = [text.query_prefix + QUERIES[index % len(QUERIES)] for index in range(count)]
    query: Tensors = {"query_embedding": encoders.embed_texts(queries).float().numpy()}
    texts = tokenize(tokenizer_json, text, [text.document_prefix + document for document in TEXTS])
    pixels: Tensors = {"pixel_values": encoders.pixel_values[np.arange(count) % len(encoders.pixel_values)]}
    return {
        "rerank_text": query | texts,
        "rerank_image": query | pixels,
        "rerank_image_text": query | texts | pixels,
    }


def _scored_rows(
    text: TextFormat, heads: Mapping[str, nn.Module], tokenizer_json: str, encoders: ReferenceEncoders
) -> dict[str, Tensors]:
    """Pair every query with every text and with every image; with both, each text once.

    A query is not an embedding but tokens, ``query_*``: the encoder that reads it is measured, too.
    """
    queries = [text.query_prefix + query for query in QUERIES]
    documents = [text.document_prefix + document for document in TEXTS]
    query_tokens = tokenize(tokenizer_json, text, queries)
    text_tokens = tokenize(tokenizer_json, text, documents)
    embeddings = {
        "query": encoders.embed_texts(queries),
        "text": encoders.embed_texts(documents),
        "image": encoders.image_embeddings,
    }
    count, images = len(TEXTS), len(encoders.pixel_values)
    rows = {}
    for modality, indices in {
        "text": _grid(query=len(QUERIES), text=count),
        "image": _grid(query=len(QUERIES), image=images),
        "image_text": {
            "query": np.arange(count) % len(QUERIES),
            "text": np.arange(count),
            "image": np.arange(count) % images,
        },
    }.items():
        tensors: Tensors = {f"query_{name}": value[indices["query"]] for name, value in query_tokens.items()}
        if "text" in indices:
            tensors |= {name: value[indices["text"]] for name, value in text_tokens.items()}
        if "image" in indices:
            tensors["pixel_values"] = encoders.pixel_values[indices["image"]]
        with torch.no_grad():
            scores, _ = heads[modality](*(embeddings[part][index] for part, index in indices.items()))
        rows[f"rerank_{modality}"] = tensors | {"relevance_score": round_scores(scores.numpy())}
    return rows


def _grid(**sizes: int) -> dict[str, NDArray[np.intp]]:
    """Return the indices of all combinations, by name."""
    return dict(zip(sizes, (axis.ravel() for axis in np.indices(tuple(sizes.values()))), strict=True))


def _golden_pairs(
    text: TextFormat, heads: Mapping[str, nn.Module], encoders: ReferenceEncoders
) -> tuple[GoldenPair, ...]:
    """Score the golden pairs; the images are small, so that the manifest is."""
    pngs = encoders.pngs
    pairs = [(QUERIES[query], GoldenInput(TEXTS[document])) for query, document in _GOLDEN_TEXT_PAIRS]
    pairs += [(QUERIES[query], GoldenInput(image_png=pngs[image])) for query, image in _GOLDEN_IMAGE_PAIRS]
    query, image, document = _GOLDEN_IMAGE_TEXT_PAIR
    pairs.append((QUERIES[query], GoldenInput(TEXTS[document], pngs[image])))
    return tuple(_score(text, heads, encoders, query, document) for query, document in pairs)


def _score(
    text: TextFormat, heads: Mapping[str, nn.Module], encoders: ReferenceEncoders, query: str, document: GoldenInput
) -> GoldenPair:
    embeddings, modality = [encoders.embed_texts([text.query_prefix + query])], []
    if document.text is not None:
        embeddings.append(encoders.embed_texts([text.document_prefix + document.text]))
        modality.append("text")
    if document.image_png is not None:
        embeddings.append(encoders.embed_image(decode(document.image_png)))
        modality.insert(0, "image")
    with torch.no_grad():
        relevance_score, _ = heads["_".join(modality)](*embeddings)
    return GoldenPair(GoldenInput(query), document, round_score(float(relevance_score)))
