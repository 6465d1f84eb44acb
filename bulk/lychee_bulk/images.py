"""Images that rows name: bytes, data URLs, paths, addresses in buckets, and URLs of allowed hosts."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from functools import partial
from typing import TYPE_CHECKING, Final

from lychee_client import Image, InvalidInputError
from lychee_client.foreign_input import to_image

from lychee_bulk.errors import MissingPackageError, RowError
from lychee_bulk.storage import open_filesystem

if TYPE_CHECKING:
    from lychee_server.gateway.image_urls import ImageFetcher

MAX_IMAGE_BYTES: Final = 64 * 2**20  # what the client takes
PROTOCOLS: Final = frozenset({"file", "s3", "s3a", "gs", "gcs"})
WEB: Final = frozenset({"http", "https"})


class ImageReader:
    """Reads the images of rows; to be used on one event loop.

    Args:
        folder: The folder, local or in a bucket, from which relative paths go on.
        hosts: The hosts from which images are fetched; without any, no URL is. The gateway's fetcher does it: public
            addresses only, no redirect to others, at most 20 MiB and 10 s for an image.
        executor: The threads that read files.

    Raises:
        MissingPackageError: Hosts are given, and the fetcher is not installed.
    """

    def __init__(self, folder: str, hosts: tuple[str, ...], executor: Executor) -> None:
        self._folder = folder.rstrip("/")
        self._executor = executor
        self._fetcher = make_fetcher(hosts) if hosts else None

    async def read(self, value: object) -> Image:
        """Return an image whose file has been read and not been decoded.

        Raises:
            RowError: It is of another type, cannot be read, is too large, or is a URL that may not be fetched.
        """
        if isinstance(value, (bytes, bytearray, memoryview)):
            return self._check(bytes(value), "the image")
        if not isinstance(value, str) or not value:
            raise RowError("bad_value", f"an image is of type {type(value).__name__}; expected bytes, a path, or a URL")
        if value.startswith("data:"):
            try:
                return to_image(value)
            except InvalidInputError as error:
                raise RowError("invalid_input", str(error)) from error
        protocol = value.partition("://")[0] if "://" in value else None
        if protocol in WEB:
            return await self._fetch(value)
        if protocol is not None and protocol not in PROTOCOLS:
            raise RowError(
                "bad_value", f"an image is at {protocol!r}; expected a path, s3://, gs://, https:// or data:"
            )
        is_absolute = protocol is not None or value.startswith("/")
        path = value if is_absolute or not self._folder else f"{self._folder}/{value}"
        loop = asyncio.get_running_loop()
        return self._check(await loop.run_in_executor(self._executor, partial(_read_file, path)), value)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._fetcher is not None:
            await self._fetcher.aclose()

    async def _fetch(self, url: str) -> Image:
        if self._fetcher is None:
            raise RowError(
                "url_refused", "images are not fetched by URL; --image-host names the hosts that may be asked"
            )
        try:
            return Image.from_bytes(await self._fetcher.fetch(url))
        except InvalidInputError as error:
            raise RowError("url_failed", str(error)) from error

    def _check(self, content: bytes, name: str) -> Image:
        if len(content) > MAX_IMAGE_BYTES:
            raise RowError("image_too_large", f"{name} is larger than {MAX_IMAGE_BYTES // 2**20} MiB; shrink it")
        return Image.from_bytes(content)


def make_fetcher(hosts: tuple[str, ...]) -> ImageFetcher:
    """Return the gateway's fetcher of images.

    Raises:
        MissingPackageError: It is not installed.
    """
    try:
        from lychee_server.gateway.image_urls import ImageFetcher
    except ImportError as error:
        raise MissingPackageError(
            "images are fetched by the code of the gateway, which is not installed; "
            'pip install "lychee-rerank-bulk[urls]"'
        ) from error
    return ImageFetcher(hosts)


def _read_file(path: str) -> bytes:
    try:
        filesystem, place = open_filesystem(path)
        with filesystem.open(place, "rb") as file:
            content: bytes = file.read(MAX_IMAGE_BYTES + 1)
    except MissingPackageError:
        raise
    except FileNotFoundError as error:
        raise RowError("image_missing", f"{path} does not exist") from error
    except Exception as error:  # of the packages for buckets, each has its own; a path may hold what none does
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise RowError("image_unreadable", f"{path} cannot be read: {reason}") from error
    return content
