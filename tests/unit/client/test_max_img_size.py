"""max_img_size: where it comes from, what it changes, what is warned about and refused."""

from __future__ import annotations

import asyncio
import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from fakes.cross_encoder import PATCHES_MANIFEST, STRETCH_MANIFEST, TEXT_MANIFEST
from fakes.dual_encoder import FakeTransport
from lychee_client import (
    AsyncLycheeClient,
    ConfigurationError,
    Image,
    InvalidInputError,
    LycheeClient,
    LycheeWarning,
    RerankResponse,
)
from lychee_client._config import load_config
from lychee_client.cli import app, options
from lychee_client.manifest import PatchSpec
from typer.testing import CliRunner, Result

# The fake's model reads at least 56 x 56 pixels and was exported with 112 x 112, in blocks of 28 x 28.


def photo() -> Image:
    return Image.from_pil(PIL.Image.effect_noise((168, 168), 60))


def rerank(
    max_img_size: int | None, is_async: bool = False, manifest: dict[str, Any] = PATCHES_MANIFEST
) -> RerankResponse:
    transport = FakeTransport(manifest=manifest)
    if not is_async:
        return LycheeClient(transport=transport, max_img_size=max_img_size).rerank("q", [photo(), "text"])
    client = AsyncLycheeClient(transport=transport, max_img_size=max_img_size)
    return asyncio.run(client.rerank("q", [photo(), "text"]))


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(
    ("max_img_size", "edge", "tokens"), [(None, 112, 16), (112, 112, 16), (111, 84, 9), (84, 84, 9), (56, 56, 4)]
)
def test_it_bounds_pixels_and_so_tokens(max_img_size: int | None, edge: int, tokens: int, is_async: bool) -> None:
    response = rerank(max_img_size, is_async)
    results = {result.index: result for result in response.results}
    assert results[0].image_size == (168, 168)
    assert (results[0].image_resized_to, results[0].image_tokens) == ((edge, edge), tokens)
    assert results[1].image_tokens is None
    assert response.warnings == ()


def test_it_bounds_the_query_too() -> None:
    transport = FakeTransport(manifest=PATCHES_MANIFEST)
    LycheeClient(transport=transport, max_img_size=56).rerank(photo(), [photo()])
    assert transport.requests[-1].inputs["image_grid_thw"].tolist() == [[[1, 4, 4], [1, 4, 4]]]  # type: ignore[union-attr]


def test_environment_sets_it_and_an_argument_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_config().max_img_size is None
    monkeypatch.setenv("LYCHEE_MAX_IMG_SIZE", "84")
    assert load_config().max_img_size == 84
    assert load_config(max_img_size=56).max_img_size == 56
    assert load_config(max_img_size=None).max_img_size is None
    (result,) = LycheeClient(transport=FakeTransport(manifest=PATCHES_MANIFEST)).rerank("q", [photo()]).results
    assert result.image_resized_to == (84, 84)
    monkeypatch.setenv("LYCHEE_MAX_IMG_SIZE", "")
    assert load_config().max_img_size is None


@pytest.mark.parametrize("value", [0, -1, 1.5, "384", True])
def test_nonsense_is_refused_by_the_constructor(value: object) -> None:
    with pytest.raises(ConfigurationError, match="max_img_size is"):
        LycheeClient(max_img_size=value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "message"), [("large", "LYCHEE_MAX_IMG_SIZE is 'large'"), ("0", "max_img_size is 0")]
)
def test_nonsense_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch, value: str, message: str) -> None:
    monkeypatch.setenv("LYCHEE_MAX_IMG_SIZE", value)
    with pytest.raises(ConfigurationError, match=message):
        LycheeClient()


@pytest.mark.parametrize("max_img_size", [1, 55])
def test_below_the_minimum_of_the_model_is_refused(max_img_size: int) -> None:
    with pytest.raises(ConfigurationError, match="at least 3136 pixels: expected 56 to 112"):
        rerank(max_img_size)


def check_warned_once(client: LycheeClient, message: str) -> None:
    with pytest.warns(LycheeWarning, match=message) as caught:
        responses = [client.rerank("q", [photo()]) for _ in range(3)]
    assert len(caught) == 1
    for response in responses:
        assert any(message in warning for warning in response.warnings)


def test_above_the_limit_of_the_export_is_warned_about_once_and_changes_nothing() -> None:
    client = LycheeClient(transport=FakeTransport(manifest=PATCHES_MANIFEST), max_img_size=113)
    check_warned_once(client, "was exported with 112")
    assert client.rerank("q", [photo()]).results[0].image_resized_to == (112, 112)


@pytest.mark.parametrize("manifest", [{}, STRETCH_MANIFEST], ids=["crop", "stretch"])
def test_images_of_a_fixed_size_are_warned_about_once(manifest: dict[str, Any]) -> None:
    client = LycheeClient(transport=FakeTransport(manifest=manifest), max_img_size=100)
    check_warned_once(client, "max_img_size has no effect")


def test_model_without_images_warns_and_refuses_an_image_alone() -> None:
    client = LycheeClient(transport=FakeTransport(manifest=TEXT_MANIFEST), max_img_size=100)
    with pytest.warns(LycheeWarning, match="reads no images; max_img_size has no effect"):
        response = client.rerank("a query", ["a document", photo(), "another"])
    assert sorted(result.index for result in response.results) == [0, 2]
    (error,) = response.errors
    assert error.index == 1
    refused = r"reads only texts as a document\. Images are read by lychee-rerank-mm .* CLIP, SigLIP and BLIP"
    assert re.search(refused, str(error.error))
    with pytest.raises(InvalidInputError, match=r"the query is of the kind images; .* Images are read by"):
        client.rerank(photo(), ["a document"])


def test_manifest_stays_what_the_server_says() -> None:
    client = LycheeClient(transport=FakeTransport(manifest=PATCHES_MANIFEST), max_img_size=56)
    assert isinstance(client.manifest().image, PatchSpec)
    assert client.manifest().image.max_pixels == 112 * 112


def test_lower_limit_makes_room_for_the_text() -> None:
    long = "d" * 500
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for size, tokens in ((None, 16), (56, 4)):
            client = LycheeClient(transport=FakeTransport(manifest=PATCHES_MANIFEST), max_img_size=size)
            (result,) = client.rerank("q", [photo()]).results
            assert result.image_tokens == tokens
            assert client.rerank("q", [long]).results[0].truncated


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    def make_client(url: str | None = None, **arguments: Any) -> LycheeClient:
        return LycheeClient(url, transport=FakeTransport(manifest=PATCHES_MANIFEST), **arguments)

    monkeypatch.setattr(options, "LycheeClient", make_client)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    PIL.Image.effect_noise((168, 168), 60).save(path)
    return path


@pytest.mark.parametrize(("arguments", "tokens"), [((), 16), (("--max-img-size", 84), 9)])
def test_commands_take_it_and_show_what_it_saves(
    run: Callable[..., Result], file: Path, arguments: tuple[object, ...], tokens: int
) -> None:
    ranked = json.loads(run("rerank", "--query", "q", "--json", *arguments, file).stdout)
    assert [result["image_tokens"] for result in ranked["results"]] == [tokens]
    scored = run("score", "--query", "q", "--image", file, *arguments)
    assert scored.exit_code == 0
    assert f"{tokens} image tokens" in " ".join(scored.stdout.split())
    assert (
        json.loads(run("score", "--query", "q", "--image", file, "--json", *arguments).stdout)["image_tokens"] == tokens
    )


@pytest.mark.parametrize("command", [("rerank",), ("score", "--image")])
def test_commands_end_with_code_2_below_the_minimum(
    run: Callable[..., Result], file: Path, command: tuple[str, ...]
) -> None:
    result = run(*command, file, "--query", "q", "--max-img-size", 55)
    assert result.exit_code == 2
    assert "expected 56 to 112" in result.stderr
