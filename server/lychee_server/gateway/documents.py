"""Queries and documents of a request: from JSON to what the client takes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import unquote_to_bytes

import pybase64
from lychee_client import Image, InvalidInputError
from lychee_client.types import Input, combine

from lychee_server.gateway.tracing.current import stage
from lychee_server.gateway.unknown_names import UnknownNames

INLINE_CHARACTERS: Final = 2**16  # base64 up to this length is decoded on the event loop
MAX_PARTS: Final = 64
# Which key of a part of `content` holds what its type says.
PART_KINDS: Final[Mapping[str, str]] = {
    "text": "text",
    "image_url": "image_url",
    "image": "image",
    "input_text": "text",
    "input_image": "image_url",
}
_KEYS: Final = frozenset({"text", "image", "image_url", "images", "content", "type"})
PARALLEL_FETCHES: Final = 8
_DATA_URL: Final = re.compile(r"data:image/[a-z0-9.+*-]+(?:;[a-z0-9-]+=[^;,]*)*;base64,", re.IGNORECASE)
# How the files of common images begin. The first 16 characters of base64 hold 12 bytes.
_HEAD_CHARACTERS: Final = 16
_MAGIC: Final = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP|BM.{4}\0{4}|II\*\0|MM\0\*|.{4}ftypavif", re.DOTALL
)
_FETCHED: Final = ("http://", "https://")
_WHITESPACE: Final = b" \t\r\n"


class Fetcher(Protocol):
    """Fetches images by URL; see ImageFetcher."""

    async def fetch(self, url: str) -> bytes:
        """Return the content.

        Raises:
            InvalidInputError: The URL may not be fetched, or leads to no image.
        """


@dataclass(frozen=True, slots=True)
class Parts:
    """What a query or document is made of, at least one of them.

    Attributes:
        text: The text, as the model reads it.
        images: Data URLs or http(s) URLs, in the order in which the model reads them.
    """

    text: str | None
    images: tuple[str, ...] = ()


def read_parts(value: object, names: UnknownNames | None = None) -> Parts:
    """Return the parts of a query or document in any of the shapes that the documentation shows.

    Args:
        value: What JSON holds.
        names: Are told of keys that are not known.

    Raises:
        InvalidInputError: It has another shape.
    """
    names = names or UnknownNames()
    if isinstance(value, str):
        return Parts(value)
    if not isinstance(value, Mapping):
        raise InvalidInputError(
            f'got a JSON {_name(value)}; expected a string, {{"text": ..., "image": ...}} or {{"content": [...]}}'
        )
    names.check_keys(value, _KEYS)
    content, text, images = value.get("content"), value.get("text"), value.get("images")
    given = [key for key in ("image", "image_url", "images") if value.get(key) is not None]
    if content is not None:
        if text is not None or given:
            raise InvalidInputError("content is given beside text or image; put all into content")
        return _read_content(content, names)
    if text is not None and not isinstance(text, str):
        raise InvalidInputError(f"text is a JSON {_name(text)}; expected a string")
    if len(given) > 1:
        raise InvalidInputError(f"both {given[0]} and {given[1]} are given; put all images into images")
    if images is None:
        images = [_read_image(key, value[key], names) for key in given]
    elif not isinstance(images, list) or not 1 <= len(images) <= MAX_PARTS:
        raise InvalidInputError(f"images is no list of 1 to {MAX_PARTS} strings")
    for part in images:
        if not isinstance(part, str):
            raise InvalidInputError(f"images holds a JSON {_name(part)}; expected strings")
    if text is None and not images:
        raise InvalidInputError("neither text nor image is given; expected at least one of them")
    return Parts(text, tuple(images))


def _read_content(content: object, names: UnknownNames) -> Parts:
    if isinstance(content, str):
        return Parts(content)
    if not isinstance(content, list) or not content or len(content) > MAX_PARTS:
        raise InvalidInputError(f"content is no list of 1 to {MAX_PARTS} parts")
    texts: list[str] = []
    images: list[str] = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if not isinstance(part, Mapping) or not isinstance(kind, str) or kind not in PART_KINDS:
            raise InvalidInputError('a part of content has another type; expected "text", "image_url" or "image"')
        key = PART_KINDS[kind]
        names.check_keys(part, {"type", key, "detail"})
        value = part.get(key)
        if value is None:
            raise InvalidInputError(f"a part of content of type {kind} has no {key}")
        if key != "text":
            images.append(_read_image(key, value, names))
        elif isinstance(value, str):
            texts.append(value)
        else:
            raise InvalidInputError(f"text of a part of content is a JSON {_name(value)}; expected a string")
    return Parts("\n".join(texts) if texts else None, tuple(images))


def _read_image(key: str, value: object, names: UnknownNames) -> str:
    if key == "image_url" and isinstance(value, Mapping):
        names.check_keys(value, {"url", "detail"})
        value = value.get("url")
    if not isinstance(value, str):
        raise InvalidInputError(f"{key} is a JSON {_name(value)}; expected a string")
    return value


class DocumentReader:
    """Turns JSON into queries and documents.

    Args:
        fetcher: Fetches images by URL; None: only data URLs are read.
        max_fetched_bytes: The most bytes that the fetched images of one request may have together.
    """

    def __init__(self, fetcher: Fetcher | None, max_fetched_bytes: int) -> None:
        self._fetcher = fetcher
        self._max_fetched_bytes = max_fetched_bytes

    async def read(
        self, values: Sequence[object], names: UnknownNames | None = None
    ) -> list[Input | InvalidInputError]:
        """Return an input for each value, or why it is none, in the order of the values.

        Args:
            values: What JSON holds.
            names: Are told of keys that are not known.
        """
        with stage("read"):
            return await self._read(values, names or UnknownNames())

    async def _read(self, values: Sequence[object], names: UnknownNames) -> list[Input | InvalidInputError]:
        if sum(_count_characters(value) for value in values) <= INLINE_CHARACTERS:
            read = [_read_one(value, names) for value in values]
        else:
            read = await asyncio.to_thread(lambda: [_read_one(value, names) for value in values])
        fetched = [index for index, value in enumerate(read) if isinstance(value, _Unfetched)]
        if fetched:
            left = [self._max_fetched_bytes]
            room = asyncio.Semaphore(PARALLEL_FETCHES)
            async with asyncio.TaskGroup() as group:
                tasks = {index: group.create_task(self._complete(read[index], left, room)) for index in fetched}
            for index, task in tasks.items():
                read[index] = task.result()
        return [value for value in read if not isinstance(value, _Unfetched)]

    async def _complete(self, value: object, left: list[int], room: asyncio.Semaphore) -> Input | InvalidInputError:
        """Fetch the images that are URLs, one after the other; see `_fetch`."""
        assert isinstance(value, _Unfetched)
        try:
            images = [
                image if isinstance(image, Image) else (await self._fetch(image, left, room)) for image in value.images
            ]
        except InvalidInputError as error:
            return error
        return combine(value.text, *images)

    async def _fetch(self, url: str, left: list[int], room: asyncio.Semaphore) -> Image:
        """Fetch an image.

        Args:
            url: Where it is.
            left: A list of one number: how many bytes the request may still fetch.
            room: A semaphore that a request's images share, so that what is fetched beyond the limit is little.

        Raises:
            InvalidInputError: It may not be fetched, or is none.
        """
        if self._fetcher is None:
            raise InvalidInputError(
                "image URLs are not fetched by this gateway; send a data URL (data:image/png;base64,...), or start the "
                "gateway with --image-host"
            )
        async with room:
            if left[0] > 0:
                data = await self._fetcher.fetch(url)
                left[0] -= len(data)
                if left[0] >= 0:
                    return Image.from_bytes(data)
            raise InvalidInputError(
                f"the request's image URLs lead to more than {self._max_fetched_bytes} bytes; send fewer at a time"
            )


@dataclass(frozen=True, slots=True)
class _Unfetched:
    """A query or document with images that have to be fetched: they are still URLs."""

    text: str | None
    images: Sequence[Image | str]


def _read_one(value: object, names: UnknownNames) -> Input | InvalidInputError | _Unfetched:
    """Return an input, why it is none, or what has to be fetched before it is one."""
    try:
        parts = read_parts(value, names)
        images = [
            url if url[:8].lower().startswith(_FETCHED) else Image.from_bytes(decode_data_url(url))
            for url in parts.images
        ]
    except InvalidInputError as error:
        return error
    complete = [image for image in images if isinstance(image, Image)]
    return combine(parts.text, *complete) if len(complete) == len(images) else _Unfetched(parts.text, images)


def decode_data_url(url: str) -> bytes:
    """Return the content of a data URL with an image in base64, or of an image's base64 without its beginning.

    Raises:
        InvalidInputError: It is something else; the message does not quote it.
    """
    match = _DATA_URL.match(url[:200])
    if match is None and not _is_image(url[:_HEAD_CHARACTERS]):
        raise InvalidInputError(
            "image is no data URL of an image; expected data:image/png;base64, followed by the file in base64, or the "
            "base64 of a JPEG, PNG, WebP, GIF, BMP or TIFF file alone (paths are never read)"
        )
    payload = url if match is None else url[match.end() :]
    try:
        try:
            data = pybase64.b64decode(payload, validate=True)
        except ValueError:  # what it refuses may still be one in several lines, or with %2B in place of +
            data = pybase64.b64decode(unquote_to_bytes(payload).translate(None, _WHITESPACE), validate=True)
    except ValueError as error:
        raise InvalidInputError(
            "the image's base64 cannot be decoded; expected the standard alphabet (A-Z a-z 0-9 + /) with padding"
        ) from error
    if not data:
        raise InvalidInputError("the image's data URL is empty; expected the file in base64 after the comma")
    return data


def _is_image(head: str) -> bool:
    """Say whether the beginning of a string is that of an image's base64."""
    try:
        return _MAGIC.match(pybase64.b64decode(head, validate=True)) is not None
    except ValueError:
        return False


def _count_characters(value: object, depth: int = 5) -> int:
    """Return how long the strings of a value are, as deep as images can stand in it."""
    if isinstance(value, str):
        return len(value)
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return sum(_count_characters(part, depth - 1) for part in parts) if depth else 0


def _name(value: object) -> str:
    """Return what JSON calls the type of a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return {int: "number", float: "number", str: "string", list: "array", dict: "object"}.get(type(value), "value")
