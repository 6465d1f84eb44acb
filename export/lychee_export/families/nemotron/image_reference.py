"""Llama Nemotron VL as transformers' own classes compute it: reference rows and golden pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lychee_client.manifest import GoldenInput, GoldenPair, TileSpec
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lychee_export.contract.signature import Tensors
from lychee_export.families.family import Reference, round_score
from lychee_export.families.nemotron.prompt import IMAGE, IMAGE_TOKEN, LOGITS_NOTE, fill
from lychee_export.families.nemotron.vision import MERGE_SIZE, make_pixel_table
from lychee_export.families.samples import QUERIES, TEXTS, encode, extreme_images, sample_images
from lychee_export.families.tiles import TileInputs

__all__ = ["ImageReference", "make_image_reference"]

_GOLDEN_TEXTS = ((0, 6), (1, 2), (3, 5))
"""Indices of (query, text)."""


@dataclass(frozen=True)
class _Pair:
    """A query, and a document of a text, an image or both."""

    query: str
    text: str | None
    image: Image.Image | None = None

    @property
    def golden_document(self) -> GoldenInput:
        return GoldenInput(self.text, encode(self.image) if self.image else None)


@dataclass(frozen=True)
class ImageReference:
    """The model in classes of transformers, scoring pairs one at a time and so without padding.

    Args:
        model: The weights.
        tokenizer: Of the checkpoint.
        image: How images become tiles.
        image_token_id: The token that stands for a part of an image.
        temperature: What logits are divided by.
        max_tokens: The longest prompt.
    """

    model: Any
    tokenizer: Any
    image: TileSpec
    image_token_id: int
    temperature: float
    max_tokens: int

    def tokenize(self, pair: _Pair) -> list[int]:
        """Return the prompt's tokens; too long a one loses its end."""
        image = ""
        if pair.image is not None:
            width, height = pair.image.size
            tokens = self.image.count_tokens(*self.image.resized(height, width))
            image = IMAGE.replace(IMAGE_TOKEN, IMAGE_TOKEN * tokens)
        prompt = image + fill(pair.query, pair.text or "")
        ids: list[int] = self.tokenizer(prompt, truncation=True, max_length=self.max_tokens)["input_ids"]
        return ids

    def cut(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return an image's tiles, uint8, (num_tiles, 3, tile_size, tile_size)."""
        edge, rgb = self.image.tile_size, image.convert("RGB")
        height, width = self.image.resized(image.height, image.width)
        grid = rgb.resize((width, height), Image.Resampling.BICUBIC)
        corners = [(left, top) for top in range(0, height, edge) for left in range(0, width, edge)]
        tiles = [grid.crop((left, top, left + edge, top + edge)) for left, top in corners]
        if len(tiles) > 1:
            tiles.append(rgb.resize((edge, edge), Image.Resampling.BICUBIC))
        return np.stack([np.asarray(tile).transpose(2, 0, 1) for tile in tiles])

    @torch.no_grad()
    def score(self, pair: _Pair) -> float:
        """Return the score of a pair, in [0, 1]."""
        towers, ids = self.model.model, torch.tensor([self.tokenize(pair)])
        embeds = towers.language_model.embed_tokens(ids)
        if pair.image is not None:
            pixels = make_pixel_table()[torch.from_numpy(self.cut(pair.image)).long()]
            embeds[ids == self.image_token_id] = self._embed(pixels)
        states = towers.language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
        return float(torch.sigmoid(self.model.score(states.mean(1))[0, 0] / self.temperature))

    def _embed(self, pixels: Tensor) -> Tensor:
        """Return the embeddings of all tokens of normalized tiles, (num_tokens, hidden_size)."""
        patches = self.model.model.vision_model(pixel_values=pixels).last_hidden_state
        side = round(patches.shape[1] ** 0.5)
        grid = patches.reshape(len(patches), side, side, -1)
        steps = range(MERGE_SIZE)
        blocks = torch.cat([grid[:, row::MERGE_SIZE, column::MERGE_SIZE] for row in steps for column in steps], -1)
        embeds: Tensor = self.model.model.mlp1(blocks.flatten(1, 2)).flatten(0, 1)
        return embeds


def make_image_reference(model: ImageReference, inputs: TileInputs) -> Reference:
    """Make the ensembles' rows and the golden pairs, one of them with an image of several tiles."""
    square, long = sample_images()[0], sample_images()[1]
    pictures = [image.resize(square.size) for image in sample_images()]
    queries = [QUERIES[index % len(QUERIES)] for index in range(len(TEXTS))]
    texts = [_Pair(query, text) for query, text in zip(queries, TEXTS, strict=True)]
    images = [
        _Pair(pair.query, pair.text if index % 2 else None, pictures[index % len(pictures)])
        for index, pair in enumerate(texts)
    ]
    golden = [
        *(_Pair(QUERIES[query], TEXTS[text]) for query, text in _GOLDEN_TEXTS),
        _Pair(QUERIES[1], None, square),
        _Pair(QUERIES[3], TEXTS[5], square),
        _Pair(QUERIES[4], TEXTS[2], long),
    ]

    def make_extreme_rows() -> Mapping[str, Tensors]:
        edge = inputs.image.tile_size
        drawn = [_Pair(query, None, image) for query, image in zip(QUERIES, extreme_images(edge, edge), strict=False)]
        return {"rerank_image": _make_rows(model, inputs, drawn)}

    return Reference(
        {"rerank_text": _make_rows(model, inputs, texts), "rerank_image": _make_rows(model, inputs, images)},
        tuple(
            GoldenPair(GoldenInput(pair.query), pair.golden_document, round_score(model.score(pair))) for pair in golden
        ),
        notes=(LOGITS_NOTE,),
        make_extreme_rows=make_extreme_rows,
    )


def _make_rows(model: ImageReference, inputs: TileInputs, pairs: Sequence[_Pair]) -> Tensors:
    """Make an ensemble's inputs of pairs without images, or of pairs whose images have equally many tiles."""
    prompts = [model.tokenize(pair) for pair in pairs]
    rows = inputs.pad_texts(prompts)
    images = [model.cut(pair.image) for pair in pairs if pair.image is not None]
    if images:
        return rows | {"pixel_values": np.stack(images)}
    return rows | inputs.without_images(len(pairs))
