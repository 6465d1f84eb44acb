"""Queries and documents: from JSON to what the client takes."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from lychee_client import Image, Images, ImageText, InvalidInputError, Text
from lychee_server.gateway.documents import DocumentReader, decode_data_url, read_parts
from lychee_server.gateway.request_schemas import PIXEL

URL = "https://images.example.org/cat.png?token=canary"


class Fetcher:
    """Plays an ImageFetcher."""

    def __init__(self, size_bytes: int = 10) -> None:
        self.size_bytes = size_bytes
        self.urls: list[str] = []

    async def fetch(self, url: str) -> bytes:
        self.urls.append(url)
        if "refused" in url:
            raise InvalidInputError("refused")
        return b"x" * self.size_bytes


def read(*values: object, fetcher: Images | None = None, max_fetched_bytes: int = 100) -> list[Any]:
    return asyncio.run(DocumentReader(fetcher, max_fetched_bytes).read(values))


@pytest.mark.parametrize(
    ("value", "text", "images"),
    [
        ("text", "text", ()),
        (PIXEL, PIXEL, ()),  # a string is always a text
        ({"text": "text"}, "text", ()),
        ({"text": "text", "image": None}, "text", ()),
        ({"text": "text", "image": None, "images": None}, "text", ()),
        ({"image": PIXEL}, None, (PIXEL,)),
        ({"text": "text", "image": PIXEL}, "text", (PIXEL,)),
        ({"image_url": PIXEL}, None, (PIXEL,)),
        ({"text": "text", "image_url": {"url": URL, "detail": "low"}}, "text", (URL,)),
        ({"text": "text", "id": 7, "metadata": {"a": [1]}, "title": "t", "content": None}, "text", ()),
        ({"type": "text", "text": "text"}, "text", ()),
        ({"images": [PIXEL]}, None, (PIXEL,)),
        ({"text": "text", "images": [PIXEL, URL, PIXEL]}, "text", (PIXEL, URL, PIXEL)),
        ({"content": "text"}, "text", ()),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "a\nb", ()),
        ({"content": [{"type": "image", "image": PIXEL}]}, None, (PIXEL,)),
        ({"content": [{"type": "image_url", "image_url": PIXEL}]}, None, (PIXEL,)),
        ({"content": [{"type": "input_text", "text": "a", "cache_control": {}}], "id": "7"}, "a", ()),
        ({"content": [{"type": "input_image", "image_url": PIXEL, "detail": "low"}]}, None, (PIXEL,)),
        ({"content": [{"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}}]}, None, (PIXEL,)),
        (
            {
                "content": [
                    {"type": "image", "image": PIXEL},
                    {"type": "text", "text": "a"},
                    {"type": "image_url", "image_url": {"url": URL}},
                ]
            },
            "a",
            (PIXEL, URL),
        ),
    ],
)
def test_every_documented_shape_is_read(value: object, text: str | None, images: tuple[str, ...]) -> None:
    parts = read_parts(value)
    assert (parts.text, parts.images) == (text, images)


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        True,
        [],
        {},
        {"text": None},
        {"text": 7},
        {"image": ["canary"]},
        {"content": []},
        {"content": None},
        {"content": ["canary"]},
        {"content": [{"type": "canary"}]},
        {"content": [{"type": "text"}]},
        {"content": [{"type": ["text"], "text": "canary"}]},
        {"content": [{"type": "image_url", "image_url": {"uri": "canary"}}]},
        {"content": [{"type": "text", "text": "canary"}], "text": "canary"},
        {"images": []},
        {"images": "canary"},
        {"images": [PIXEL, None]},
        {"images": ["canary"] * 65},
        {"image": "canary", "images": ["canary"]},
        {"image": "canary", "image_url": "canary"},
        {"image_url": {"uri": "canary"}},
        {"title": "canary", "id": "canary"},
        {"content": "canary", "text": "canary"},
        {"content": [{"type": "text", "text": "canary"}] * 65},
    ],
)
def test_other_shapes_are_errors_that_quote_nothing(value: object) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_parts(value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("payload", ["aGVsbG8=", "aGVs\nbG8=\r\n", "aGVsbG8%3D"])
def test_data_urls_are_decoded(payload: str) -> None:
    assert decode_data_url(f"data:image/png;base64,{payload}") == b"hello"
    assert decode_data_url(f"DATA:image/svg+xml;charset=utf-8;base64,{payload}") == b"hello"


@pytest.mark.parametrize(
    "head",
    [b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF1234WEBP", b"BM1234\0\0\0\0", b"II*\0", b"MM\0*"],
)
def test_an_images_base64_needs_no_beginning(head: bytes) -> None:
    content = head + bytes(30)
    assert decode_data_url(base64.b64encode(content).decode()) == content
    assert decode_data_url(base64.encodebytes(content).decode()) == content


@pytest.mark.parametrize(
    "url",
    [
        "",
        "iVBORw0KGgo",
        "/9j/canary/canary/canary.jpg",
        base64.b64encode(b"GIF90a, canary, canary").decode(),
        "canary",
        "aGVsbG8=",
        "/etc/canary",
        "file:///etc/canary",
        "ftp://canary/cat.png",
        "data:text/plain;base64,aGVsbG8=",
        "data:image/png,canary",
        "data:image/png;base64,",
        "data:image/png;base64,a",
        "data:image/png;base64,!canary!",
        "data:image/png;base64,aGVs-_8=",
        "data:image/png;base64,猫",
        "data:image/png" + ";a=b" * 100_000,
    ],
)
def test_what_is_no_data_url_is_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        decode_data_url(url)
    assert "canary" not in str(caught.value)


def test_order_is_kept_and_errors_stand_at_their_place() -> None:
    values = ["a", {"image": PIXEL}, {"image": "nothing"}, {"text": "t", "image": PIXEL}, {"text": "b"}]
    results = read(*values)
    assert [type(result) for result in results] == [Text, Image, InvalidInputError, ImageText, Text]


def test_large_documents_are_decoded_too() -> None:
    large = base64.b64encode(bytes(200_000)).decode()
    results = read("a", {"image": f"data:image/png;base64,{large}"})
    assert repr(results[1]) == "Image(200000 bytes)"


def test_urls_are_refused_unless_switched_on() -> None:
    (error,) = read({"image": URL})
    assert isinstance(error, InvalidInputError)
    assert "--image-host" in str(error)
    assert "canary" not in str(error)


def test_urls_are_fetched_where_switched_on() -> None:
    images = Fetcher()
    results = read({"text": "t", "image": URL}, "a", {"image": "HTTPS://refused"}, fetcher=images)
    assert [type(result) for result in results] == [ImageText, Text, InvalidInputError]
    assert images.urls == [URL, "HTTPS://refused"]


def test_several_images_keep_their_order_and_any_of_them_may_be_fetched() -> None:
    fetcher = Fetcher(size_bytes=7)
    inline = f"data:image/png;base64,{base64.b64encode(bytes(5)).decode()}"
    both, pictures, broken = read(
        {"text": "t", "images": [inline, URL, inline]},
        {"images": [inline, inline]},
        {"images": [inline, "https://refused"]},
        fetcher=fetcher,
    )
    assert isinstance(both, ImageText)
    assert isinstance(both.image, Images)
    assert list(map(repr, both.image.images)) == ["Image(5 bytes)", "Image(7 bytes)", "Image(5 bytes)"]
    assert isinstance(pictures, Images)
    assert len(pictures.images) == 2
    assert isinstance(broken, InvalidInputError)


def test_fetched_images_of_one_request_are_limited_together() -> None:
    images = Fetcher(size_bytes=40)
    results = read(*[{"image": URL}] * 20, fetcher=images, max_fetched_bytes=100)
    assert sum(isinstance(result, Image) for result in results) == 2
    assert len(images.urls) <= 10


def test_deep_json_is_an_error_and_no_crash() -> None:
    deep: Any = "canary"
    for _ in range(900):
        deep = {"text": [deep]}
    (error,) = read(deep)
    assert isinstance(error, InvalidInputError)
