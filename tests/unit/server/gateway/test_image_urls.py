"""Image URLs: what is fetched, and every way into the network that is not.

A real server on the loopback plays the hosts of the internet: the resolver is ours and says where names lead, so the
server's address has to be allowed where a test wants to reach it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from lychee_client import InvalidInputError
from lychee_server.gateway.image_urls import ImageFetcher, is_public_address
from lychee_server.gateway.metrics import Metrics

HOSTS = ("images.example.org", "*.cdn.example.org", "bücher.example")
PIXELS = b"\x89PNG canary"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Resolver(AbstractResolver):
    """Says that every name leads to these addresses; each answer may differ. Connections go to the test's server."""

    def __init__(self, port: int, *answers: list[str]) -> None:
        self.asked: list[str] = []
        self._port = port
        self._answers = list(answers) or [["127.0.0.1"]]

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[ResolveResult]:
        self.asked.append(host)
        addresses = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=self._port,
                family=socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        pass


class Site:
    """A server, and a fetcher whose names lead there."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.resolver = Resolver(port)
        self.metrics = Metrics()
        self.requests: list[web.Request] = []

    def fetcher(self, **options: Any) -> ImageFetcher:
        options.setdefault("is_allowed_address", lambda address: address == "127.0.0.1")
        return ImageFetcher(HOSTS, metrics=self.metrics, resolver=self.resolver, **options)

    @property
    def refused(self) -> int:
        return int(self.metrics.snapshot()["rejected"]["url_refused"])


@asynccontextmanager
async def serve(handler: Handler) -> AsyncIterator[Site]:
    """Run a server that answers everything with the handler."""
    application = web.Application()
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    seen: list[web.Request] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        seen.append(request)
        return await handler(request)

    application.router.add_route("*", "/{path:.*}", handle)
    await runner.setup()
    tcp = web.TCPSite(runner, "127.0.0.1", 0)
    await tcp.start()
    assert tcp._server is not None
    site = Site(tcp._server.sockets[0].getsockname()[1])
    site.requests = seen
    try:
        yield site
    finally:
        await runner.cleanup()


async def image(request: web.Request) -> web.Response:
    return web.Response(body=PIXELS, content_type="image/png")


def fetch(url: str, handler: Handler = image, **options: Any) -> bytes:
    """Fetch one URL from a server with this handler."""

    async def run() -> bytes:
        async with serve(handler) as site:
            return await fetch_from(site, url, **options)

    return asyncio.run(run())


async def fetch_from(site: Site, url: str, **options: Any) -> bytes:
    fetcher = site.fetcher(**options)
    try:
        return await fetcher.fetch(url)
    finally:
        await fetcher.aclose()


@pytest.mark.parametrize(
    "url",
    [
        "http://images.example.org/a.png",
        "http://IMAGES.Example.ORG./a.png?size=2#part",
        "http://images.example.org:80/",
        "http://a.cdn.example.org/",
        "http://a.b.cdn.example.org/",
        "http://bücher.example/",
        "http://xn--bcher-kva.example/",
    ],
)
def test_images_of_allowed_hosts_are_fetched(url: str) -> None:
    assert fetch(url) == PIXELS


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://example.org/", "not allowed"),
        ("http://cdn.example.org/", "not allowed"),
        ("http://evilcdn.example.org/", "not allowed"),
        ("http://images.example.org.evil.net/", "not allowed"),
        ("http://evil.net/images.example.org", "not allowed"),
        ("http://evil.net?@images.example.org/", "not allowed"),
        ("http://evil.net#@images.example.org/", "not allowed"),
        ("http://images.example.org@evil.net/", "user name"),
        ("http://user:canary@images.example.org/", "user name"),
        ("http://images.example.org:8080/", "port 8080"),
        ("https://images.example.org:80/", "port 80"),
        ("http://images.example.org:443/", "port 443"),
        ("http://images.example.org:99999/", "cannot be read"),
        ("ftp://images.example.org/", "neither http nor https"),
        ("file:///etc/passwd", "neither http nor https"),
        ("gopher://images.example.org/", "neither http nor https"),
        ("//images.example.org/", "neither http nor https"),
        ("images.example.org/a.png", "neither http nor https"),
        ("http:///a.png", "neither http nor https|cannot be read"),
        ("", "neither http nor https"),
        ("http://[::1", "cannot be read"),
        ("http://images.example.org\\@evil.net/", "backslashes"),
        ("http://images.example.org /", "spaces"),
        ("http://images.example.org/\r\nx: y", "control"),
        (f"http://images.example.org/{'a' * 2048}", "2074 characters"),
        ("http://127.0.0.1/", "address"),
        ("http://2130706433/", "address"),
        ("http://0177.0.0.1/", "address"),
        ("http://127.1/", "address"),
        ("http://0x7f000001/", "not allowed"),
        ("http://[::1]/", "address"),
        ("http://[::ffff:127.0.0.1]/", "address"),
        ("http://169.254.169.254/latest/meta-data", "address"),
        ("http://localhost/", "not allowed"),
        ("http://.cdn.example.org/", "which is no name"),
        ("http://a..cdn.example.org/", "which is no name"),
        (f"http://{'a' * 64}.cdn.example.org/", "which is no name"),
        (f"http://{'a.' * 130}cdn.example.org/", "which is no name"),
        ("http://xn--a.cdn.example.org/", "which is no name"),
        ("http://xn--.cdn.example.org/", "which is no name"),
        ("http://-a.cdn.example.org/", "which is no name"),
        ("http://a%00b.cdn.example.org/", "which is no name"),
    ],
)
def test_other_urls_are_refused_before_anything_is_asked(url: str, reason: str) -> None:
    async def test() -> None:
        async with serve(image) as site:
            with pytest.raises(InvalidInputError, match=reason) as caught:
                await fetch_from(site, url, is_allowed_address=lambda address: True)
            assert "canary" not in str(caught.value)
            assert (site.requests, site.resolver.asked, site.refused) == ([], [], 1)

    asyncio.run(test())


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "100.100.100.200", "192.0.0.8", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1",
        "239.1.1.1", "240.0.0.1", "255.255.255.255", "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1",
        "::ffff:10.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1",
        "2002:7f00:1::", "2002:a00:1::", "2001:0:7f00:1::", "2001:db8::1", "fc00::1", "fd00:ec2::254", "fe80::1",
        "fe80::1%eth0", "fec0::1", "ff02::1", "100::1", "nonsense", "2130706433", "",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public_address(address)


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::"],
)
def test_addresses_that_are_public(address: str) -> None:
    assert is_public_address(address)


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["10.0.0.1"], ["1.1.1.1", "127.0.0.1"], ["127.0.0.1", "1.1.1.1"]])
def test_a_name_with_any_address_inside_is_refused_by_default(addresses: list[str]) -> None:
    async def test() -> None:
        async with serve(image) as site:
            site.resolver = Resolver(site.port, addresses)
            with pytest.raises(InvalidInputError, match=r"images\.example\.org are not fetched: .* not a public one"):
                await fetch_from(site, "http://images.example.org/", is_allowed_address=None)
            assert (site.requests, site.refused) == ([], 1)

    asyncio.run(test())


def test_a_name_is_resolved_once_so_that_it_cannot_lead_elsewhere_after_the_check() -> None:
    async def test() -> None:
        async with serve(image) as site:
            site.resolver = Resolver(site.port, ["127.0.0.1"], ["10.0.0.1"])
            fetcher = site.fetcher()
            assert await fetcher.fetch("http://images.example.org/") == PIXELS
            assert site.resolver.asked == ["images.example.org"]
            with pytest.raises(InvalidInputError, match="not a public one"):  # neither cached nor kept open
                await fetcher.fetch("http://images.example.org/")
            assert len(site.requests) == 1
            await fetcher.aclose()

    asyncio.run(test())


def redirect_to(*targets: str) -> Handler:
    """Answer with the redirects one after the other, then with the image."""
    left = list(targets)

    async def handle(request: web.Request) -> web.StreamResponse:
        if left:
            return web.Response(status=302, headers={"Location": left.pop(0)})
        return await image(request)

    return handle


@pytest.mark.parametrize("targets", [["/b.png"], ["//a.cdn.example.org/x", "b", "http://images.example.org/"]])
def test_redirects_among_allowed_hosts_are_followed(targets: list[str]) -> None:
    assert fetch("http://images.example.org/a.png", redirect_to(*targets)) == PIXELS


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1/",
        "http://169.254.169.254/latest/meta-data",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
        "http://localhost/",
        "http://evil.net/",
        "http://images.example.org:8000/",
        "http://user:pass@images.example.org/",
        "file:///etc/passwd",
        "http://[::1",
    ],
)
def test_redirects_to_elsewhere_are_refused(target: str) -> None:
    async def test() -> None:
        async with serve(redirect_to(target)) as site:
            with pytest.raises(InvalidInputError):
                await fetch_from(site, "http://images.example.org/", is_allowed_address=lambda address: True)
            assert len(site.requests) == 1

    asyncio.run(test())


def test_an_allowed_host_is_resolved_and_checked_again_for_a_redirect() -> None:
    async def test() -> None:
        async with serve(redirect_to("/again")) as site:
            site.resolver = Resolver(site.port, ["127.0.0.1"], ["127.0.0.2"])
            with pytest.raises(InvalidInputError, match="not a public one"):
                await fetch_from(site, "http://images.example.org/")
            assert (len(site.requests), len(site.resolver.asked)) == (1, 2)

    asyncio.run(test())


def test_more_than_three_redirects_are_too_many() -> None:
    assert fetch("http://images.example.org/", redirect_to("/1", "/2", "/3")) == PIXELS
    with pytest.raises(InvalidInputError, match="on more than 3 times"):
        fetch("http://images.example.org/", redirect_to("/1", "/2", "/3", "/4"))


def answering(**options: Any) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(**options)

    return handle


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"status": 404}, "status 404; expected 200"),
        ({"status": 304}, "status 304"),
        ({"body": b"<html>", "content_type": "text/html"}, "type 'text/html'; expected image/"),
        ({"body": b"x"}, "type 'application/octet-stream'"),
        ({"body": b"x", "headers": {"Content-Type": "image/png", "Content-Encoding": "gzip"}}, "compressed"),
        ({"body": b"x" * 1001, "content_type": "image/png"}, "larger than"),
    ],
)
def test_other_answers_are_no_images(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        fetch("http://images.example.org/a?token=canary", answering(**options), max_image_bytes=1000)


def test_an_image_of_the_largest_size_is_taken() -> None:
    assert len(fetch("http://images.example.org/", answering(body=b"x" * 1000, content_type="image/png"))) == 1000


def test_an_endless_body_is_cut() -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers={"Content-Type": "image/png"})
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)
            sent += 65536

    with pytest.raises(InvalidInputError, match="larger than 1 MiB; send a smaller one"):
        fetch("http://images.example.org/", endless, max_image_bytes=2**20)
    assert sent < 20 * 2**20


@pytest.mark.parametrize("begins", [True, False])
def test_a_slow_server_is_given_up(begins: bool) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "image/png"})
        if begins:
            await response.prepare(request)
            await response.write(b"x")
        await asyncio.Event().wait()
        return response

    with pytest.raises(InvalidInputError, match=r"took longer than 0\.1 s"):
        fetch("http://images.example.org/", slow, timeout_s=0.1)


def test_nobody_at_the_other_end_and_unknown_names_are_told_apart() -> None:
    class Unknown(Resolver):
        async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[ResolveResult]:
            raise OSError(None, "unknown")

    async def test() -> None:
        async with serve(image) as site:
            site.resolver = Unknown(0)
            with pytest.raises(InvalidInputError, match=r"host images\.example\.org .* cannot be found"):
                await fetch_from(site, "http://images.example.org/")
            with socket.socket() as unused:
                unused.bind(("127.0.0.1", 0))
                site.resolver = Resolver(unused.getsockname()[1])
                with pytest.raises(InvalidInputError, match="could not be fetched"):
                    await fetch_from(site, "http://images.example.org/a?token=canary")

    asyncio.run(test())


def test_messages_name_the_host_and_nothing_else_of_the_url() -> None:
    for handler in (answering(status=500), redirect_to("http://evil.net/canary"), redirect_to("http://[canary")):
        with pytest.raises(InvalidInputError) as caught:
            fetch("http://images.example.org/canary?canary=canary", handler)
        assert "canary" not in str(caught.value)


def test_no_cookie_no_credentials_no_compression_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

    async def test() -> None:
        async def with_cookie(request: web.Request) -> web.StreamResponse:
            response = await image(request)
            response.set_cookie("session", "1")
            return response

        async with serve(with_cookie) as site:
            fetcher = site.fetcher()
            for _ in range(2):
                assert await fetcher.fetch("http://images.example.org/") == PIXELS
            await fetcher.aclose()
            sent = {"host", "accept", "accept-encoding", "user-agent", "connection"}
            for request in site.requests:
                assert {name.lower() for name in request.headers} == sent
                assert request.headers["Accept-Encoding"] == "identity"
                assert request.headers["Host"] == "images.example.org"

    asyncio.run(test())


def test_so_many_at_the_same_time_and_the_rest_afterwards() -> None:
    async def test() -> None:
        running, peak = 0, 0
        full, go_on = asyncio.Event(), asyncio.Event()

        async def hold(request: web.Request) -> web.StreamResponse:
            nonlocal running, peak
            running += 1
            peak = max(peak, running)
            if running == 2:
                full.set()
            await go_on.wait()
            running -= 1
            return await image(request)

        async with serve(hold) as site:
            fetcher = site.fetcher(max_parallel=2)
            tasks = [asyncio.create_task(fetcher.fetch("http://images.example.org/")) for _ in range(6)]
            await full.wait()
            assert len(site.requests) == 2
            go_on.set()
            assert await asyncio.gather(*tasks) == [PIXELS] * 6
            assert peak <= 2
            await fetcher.aclose()

    asyncio.run(test())
