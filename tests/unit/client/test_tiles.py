"""Images that are read as tiles: how many, which pixels, and what a call sends."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import PIL.Image
import pytest
from fakes.cross_encoder import TILES_MANIFEST
from fakes.dual_encoder import MANIFEST, FakeTransport
from lychee_client import ConfigurationError, Image, Images, ImageText, LycheeClient, LycheeWarning
from lychee_client.manifest import Manifest, TileSpec, count_read_tiles, describe_reading, parse_manifest
from lychee_client.preprocessing.image_limit import limit_images

SPEC = TileSpec(32, 6, 4, "bicubic", 6)


def parse(**changes: Any) -> Manifest:
    data = copy.deepcopy({**MANIFEST, **TILES_MANIFEST, "artifacts": {"tokenizer": "ab" * 32}, **changes})
    del data["embedding_dim"]
    return parse_manifest(json.dumps(data))


def photo(width: int, height: int) -> PIL.Image.Image:
    return PIL.Image.effect_noise((width, height), 60).convert("RGB")


@pytest.mark.parametrize(
    ("size", "grid", "tokens"),
    [
        ((32, 32), (32, 32), 4),
        ((1, 1), (32, 32), 4),  # one tile is enough, and the smallest of equally good grids is taken
        ((64, 32), (64, 32), 12),  # two tiles and the whole
        ((96, 64), (96, 64), 28),
        ((640, 64), (192, 32), 28),
        ((1000, 1000), (64, 64), 20),
        ((20, 3000), (32, 192), 28),
    ],
)
def test_image_is_stretched_to_the_grid_that_fits_it(size: tuple[int, int], grid: tuple[int, int], tokens: int) -> None:
    prepared = Image.from_pil(photo(*size)).prepare(SPEC)
    assert (prepared.resized_to, prepared.tokens, prepared.size) == (grid, tokens, size)
    assert prepared.pixel_values.shape == (tokens // 4, 3, 32, 32)
    assert Image.from_pil(photo(*size)).count_tokens(SPEC) == tokens


def test_tiles_stand_row_by_row_and_the_whole_comes_last() -> None:
    image = photo(96, 64)
    prepared = Image.from_pil(image).prepare(SPEC)
    pixels = np.asarray(image).transpose(2, 0, 1)  # the image is as large as its grid
    for index, tile in enumerate(prepared.pixel_values[:-1]):
        top, left = 32 * (index // 3), 32 * (index % 3)
        np.testing.assert_array_equal(tile, pixels[:, top : top + 32, left : left + 32])
    whole = np.asarray(image.resize((32, 32), PIL.Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    np.testing.assert_array_equal(prepared.pixel_values[-1], whole)


def test_an_image_of_one_tile_is_read_once() -> None:
    assert [count_read_tiles(tiles) for tiles in (1, 2, 6)] == [1, 3, 7]
    assert (SPEC.min_pixels, SPEC.max_pixels, SPEC.max_image_tokens) == (1024, 6144, 28)


def test_texts_and_images_travel_each_in_their_ensemble() -> None:
    transport = FakeTransport(manifest=TILES_MANIFEST)
    picture = Image.from_pil(photo(96, 64))
    documents = ["text", picture, ImageText(picture, "text")]
    response = LycheeClient(transport=transport).rerank("q", documents)
    assert not response.errors
    tokens = {result.index: result.image_tokens for result in response.results}
    assert tokens == {0: None, 1: 28, 2: 28}
    sent = [request for request in transport.requests if request.model_name.startswith("rerank")]  # type: ignore[union-attr]
    shapes = {request.model_name: request.inputs for request in sent}  # type: ignore[union-attr]
    assert shapes["rerank_text"]["image_embeds"].shape == (1, 1, 6)
    assert shapes["rerank_image"]["pixel_values"].shape == (1, 7, 3, 32, 32)
    assert set(shapes["rerank_image"]) == {"input_ids", "attention_mask", "pixel_values"}


def test_two_images_of_one_document_are_refused_for_it_alone() -> None:
    picture = Image.from_pil(photo(40, 30))
    client = LycheeClient(transport=FakeTransport(manifest=TILES_MANIFEST))
    response = client.rerank("q", [Images([picture, picture]), picture])
    assert [error.index for error in response.errors] == [0]
    assert "reads at most 1 per pair; send fewer" in str(response.errors[0].error)
    assert [result.index for result in response.results] == [1]


@pytest.mark.parametrize(
    ("max_img_size", "tiles", "tokens"), [(None, 6, 28), (79, 6, 28), (78, 5, 20), (56, 3, 12), (32, 1, 4)]
)
def test_max_img_size_leaves_fewer_tiles(max_img_size: int | None, tiles: int, tokens: int) -> None:
    spec, warning = limit_images(parse(), max_img_size)
    assert warning is None
    assert isinstance(spec, TileSpec)
    assert spec.max_tiles == tiles
    client = LycheeClient(transport=FakeTransport(manifest=TILES_MANIFEST), max_img_size=max_img_size)
    (result,) = client.rerank("q", [Image.from_pil(photo(90, 60))]).results
    assert result.image_tokens == tokens


def test_max_img_size_below_one_tile_is_refused_and_a_larger_one_changes_nothing() -> None:
    with pytest.raises(ConfigurationError, match=r"images of at least 1024 pixels: expected 32 to 79"):
        limit_images(parse(), 31)
    with pytest.warns(LycheeWarning, match="was exported with 79"):
        LycheeClient(transport=FakeTransport(manifest=TILES_MANIFEST), max_img_size=80).rerank("q", ["text"])


def test_a_page_is_told_in_tiles() -> None:
    own = {"max_tokens": 512, "max_pixels": 6144}
    image_line, text_line = describe_reading(parse(checkpoint_limits=own))
    assert image_line == "images: a page of 1,654 x 2,339 pixels is read as 64 x 96 (28 tokens)"
    assert text_line.startswith("texts: at most 256 tokens of query, document and their images instead of 512")
    less = parse(checkpoint_limits=own, image={**TILES_MANIFEST["image"], "max_tiles": 1})
    assert "read as 32 x 32 (4 tokens) instead of 64 x 96 (28 tokens)" in next(iter(describe_reading(less)))
