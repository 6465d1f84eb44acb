"""Images that a request names by URL: fetched only from allowed hosts, and never from inside the network.

A host's name is not enough, since its owner decides what it resolves to. So the addresses are checked where the
connection is made, after the only resolution, and again for every redirect.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from lychee_client import InvalidInputError
from yarl import URL

from lychee_server.defaults import MIB
from lychee_server.gateway.metrics import Metrics

MAX_IMAGE_BYTES: Final = 20 * MIB
MAX_URL_CHARACTERS: Final = 2048
MAX_HOST_CHARACTERS: Final = 253
MAX_REDIRECTS: Final = 3
MAX_PARALLEL: Final = 8
TIMEOUT_S: Final = 10.0
CHUNK_BYTES: Final = 2**16
DEFAULT_PORTS: Final = {"http": 80, "https": 443}

_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NOT_HTTP: Final = "its answer is no HTTP, or broke off"
_FAILURES: Final[tuple[tuple[type[aiohttp.ClientError], str], ...]] = (  # the first class that fits counts
    (aiohttp.ClientSSLError, "its TLS certificate is not valid for it, or it speaks no TLS"),
    (aiohttp.ClientConnectorError, "it takes no connection"),
    (aiohttp.ServerDisconnectedError, "it closed the connection"),
    (aiohttp.ClientOSError, "the connection broke off"),
)
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_HEADERS: Final = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "lychee-rerank-gateway"}
_GLOBAL_UNICAST_6: Final = ipaddress.IPv6Network("2000::/3")
_PROTOCOL_4: Final = ipaddress.IPv4Network("192.0.0.0/24")  # global to Python before 3.11.10 (CVE-2024-4032)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


class ImageFetcher:
    """Fetches images from allowed hosts; to be used on one event loop.

    Args:
        hosts: The allowed hosts; "*.example.org" means every subdomain of example.org, not example.org itself.
        metrics: Where refused URLs are counted.
        resolver: Is asked for addresses; None: the system's. For tests.
        is_allowed_address: Says where a connection may lead. For tests.
        max_image_bytes: The size of the largest image.
        timeout_s: How many seconds one image may take, redirects included.
        max_parallel: How many images are fetched at the same time; further ones wait.
    """

    def __init__(
        self,
        hosts: Iterable[str],
        *,
        metrics: Metrics | None = None,
        resolver: AbstractResolver | None = None,
        is_allowed_address: Callable[[str], bool] | None = None,
        max_image_bytes: int = MAX_IMAGE_BYTES,
        timeout_s: float = TIMEOUT_S,
        max_parallel: int = MAX_PARALLEL,
    ) -> None:
        names = [host.rstrip(".").lower() for host in hosts]
        self._exact = frozenset(_ascii_host(name) for name in names if not name.startswith("*."))
        self._suffixes = tuple(f".{_ascii_host(name[2:])}" for name in names if name.startswith("*."))
        self._metrics = metrics
        self._resolver = resolver
        self._is_allowed_address = is_allowed_address or is_public_address
        self._max_image_bytes = max_image_bytes
        self._timeout_s = timeout_s
        self._parallel = asyncio.Semaphore(max_parallel)
        self._session: aiohttp.ClientSession | None = None

    async def fetch(self, url: str) -> bytes:
        """Return the content behind a URL; not decoded, so not necessarily an image.

        Raises:
            InvalidInputError: The URL may not be fetched, or what it leads to is no image, too large or too slow. The
                message names the host only.
        """
        async with self._parallel:
            try:
                async with asyncio.timeout(self._timeout_s):
                    return await self._follow(self._check_url(url))
            except TimeoutError as error:
                raise InvalidInputError(f"the image's URL took longer than {self._timeout_s:g} s") from error

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def _check_url(self, url: str) -> URL:
        """Return the URL with a normal host, without fragment.

        Raises:
            InvalidInputError: It may not be fetched.
        """
        if len(url) > MAX_URL_CHARACTERS:
            raise self._refuse(f"an image URL has {len(url)} characters; expected at most {MAX_URL_CHARACTERS}")
        if not url.isprintable() or " " in url or "\\" in url:
            raise self._refuse("an image URL holds spaces, backslashes or control characters; percent-encode them")
        try:
            parsed = URL(url)
            host = (parsed.raw_host or "").rstrip(".").lower()
            port = parsed.explicit_port
            has_user = parsed.raw_user is not None or parsed.raw_password is not None
        except ValueError:
            raise self._refuse("an image URL cannot be read; expected https://HOST/PATH") from None
        if parsed.scheme not in DEFAULT_PORTS or not host:
            raise self._refuse("an image URL is neither http nor https; expected https://HOST/PATH or a data URL")
        if has_user:
            raise self._refuse("an image URL holds a user name or password; leave them out")
        if _is_address(host):
            raise self._refuse("an image URL names an address instead of a host; expected https://HOST/PATH")
        if host not in self._exact and not host.endswith(self._suffixes or "/"):
            raise self._refuse(f"images of {host[:100]!r} are not fetched: the host is not allowed (--image-host)")
        if not _is_name(host):
            raise self._refuse(
                f"an image URL names the host {host[:100]!r}, which is no name; expected https://HOST/PATH"
            )
        if port not in (None, DEFAULT_PORTS[parsed.scheme]):
            raise self._refuse(f"an image URL of {host} names port {port}; expected {DEFAULT_PORTS[parsed.scheme]}")
        return parsed.with_host(host).with_fragment(None)

    async def _follow(self, url: URL) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            try:
                async with self._open_session().get(url, allow_redirects=False) as response:
                    if response.status not in _REDIRECTS:
                        return await self._read(url, response)
                    location = response.headers.get("Location", "")
            except aiohttp.ClientConnectorDNSError as error:
                if isinstance(error.os_error, _RefusedAddressError):
                    raise self._refuse(
                        f"images of {url.host} are not fetched: the host's address is not a public one"
                    ) from None
                raise InvalidInputError(f"the host {url.host} of an image URL cannot be found") from error
            except aiohttp.ClientError as error:
                reason = next((text for kind, text in _FAILURES if isinstance(error, kind)), _NOT_HTTP)
                raise InvalidInputError(f"the image could not be fetched from {url.host}: {reason}") from error
            try:
                target = url.join(URL(location))
            except ValueError:
                raise InvalidInputError(f"{url.host} sends an image URL to a place that cannot be read") from None
            url = self._check_url(str(target))
        raise self._refuse(f"{url.host} sends an image URL on more than {MAX_REDIRECTS} times")

    async def _read(self, url: URL, response: aiohttp.ClientResponse) -> bytes:
        if response.status != HTTPStatus.OK:
            raise InvalidInputError(f"{url.host} answers an image URL with status {response.status}; expected 200")
        if not response.content_type.startswith("image/"):
            raise InvalidInputError(
                f"{url.host} answers an image URL with type {response.content_type[:50]!r}; expected image/*"
            )
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise InvalidInputError(f"{url.host} answers an image URL with a compressed body; expected none")
        if (response.content_length or 0) > self._max_image_bytes:
            raise self._too_large(url)
        content = bytearray()
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            content += chunk
            if len(content) > self._max_image_bytes:
                raise self._too_large(url)
        return bytes(content)

    def _too_large(self, url: URL) -> InvalidInputError:
        return InvalidInputError(
            f"the image at {url.host} is larger than {self._max_image_bytes / MIB:g} MiB; send a smaller one"
        )

    def _refuse(self, message: str) -> InvalidInputError:
        if self._metrics is not None:
            self._metrics.reject("url_refused")
        return InvalidInputError(message)

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                resolver=_CheckedResolver(self._resolver or aiohttp.ThreadedResolver(), self._is_allowed_address),
                use_dns_cache=False,  # one resolution per connection: what was checked is what is connected to
                force_close=True,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                headers=_HEADERS,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,  # a proxy would resolve the name again, and no .netrc
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None),  # fetch has the limit
                max_line_size=MAX_URL_CHARACTERS * 2,
            )
        return self._session


def is_public_address(address: str) -> bool:
    """Say whether an address is one of the public internet, also when an IPv4 address hides in an IPv6 one."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:  # such as fe80::1%eth0
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public_address(str(inner))
        if ip not in _GLOBAL_UNICAST_6:
            return False
    elif ip in _PROTOCOL_4:
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


class _RefusedAddressError(OSError):
    """A name leads to an address that may not be connected to."""


class _CheckedResolver(AbstractResolver):
    """Refuses a name if any of its addresses is refused: whichever is then connected to was checked."""

    def __init__(self, resolver: AbstractResolver, is_allowed: Callable[[str], bool]) -> None:
        self._resolver = resolver
        self._is_allowed = is_allowed

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        if not all(self._is_allowed(result["host"]) for result in found):
            raise _RefusedAddressError(None, f"{host} has an address that is not public")
        return found

    async def close(self) -> None:
        await self._resolver.close()


def _is_address(host: str) -> bool:
    """Say whether this is an address, which no resolver is asked for."""
    return ":" in host or host.replace(".", "").isdigit()


def _is_name(host: str) -> bool:
    """Say whether a resolver can be asked for a host, given in ASCII."""
    if len(host) > MAX_HOST_CHARACTERS or not all(map(_LABEL.fullmatch, host.split("."))):
        return False
    try:
        return bool(URL.build(scheme="http", host=host).host)
    except ValueError:  # "xn--" and what is no Punycode
        return False


def _ascii_host(name: str) -> str:
    """Return the name as it stands in a URL on the wire."""
    return (URL.build(scheme="http", host=name).raw_host or "").lower()
