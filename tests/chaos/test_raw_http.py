"""What no HTTP library sends: the gateway answers it with an error or hangs up, and serves the next caller."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Final

import pytest
import uvicorn
from fakes.dual_encoder import FakeTransport
from lychee_server.gateway.app import create_app
from lychee_server.gateway.service import Service
from lychee_server.gateway.settings import GatewaySettings

TIMEOUT_S: Final = 10.0
BODY: Final = b'{"query": "aaaa", "documents": ["aaaa"]}'
HEAD: Final = b"POST /v1/rerank HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
LENGTH: Final = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"
CHUNKS: Final = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
NEXT: Final = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """Run a gateway in a thread, with uvicorn as `lychee gateway` runs it."""
    listener = socket.create_server(("127.0.0.1", 0))
    servers: list[uvicorn.Server] = []
    started = threading.Event()

    async def serve() -> None:
        settings = GatewaySettings(web=False)
        app = create_app(settings, service=Service(settings, transport=FakeTransport()))
        servers.append(uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none", lifespan="on")))
        task = asyncio.create_task(servers[0].serve([listener]))
        while not servers[0].started:
            await asyncio.sleep(0.01)
        started.set()
        await task

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LYCHEE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
        thread.start()
        assert started.wait(60)
        yield listener.getsockname()[:2]
        servers[0].should_exit = True
        thread.join(30)


def talk(address: tuple[str, int], *parts: bytes, end: bool = False) -> tuple[list[int], bool]:
    """Send parts, and return the statuses of the answers, and whether the gateway hung up by itself."""
    received = b""
    with socket.create_connection(address, timeout=TIMEOUT_S) as connection:
        try:
            for part in parts:
                connection.sendall(part)
                time.sleep(0.05)
            if end:
                connection.shutdown(socket.SHUT_WR)
            while data := connection.recv(65536):
                received += data
                connection.settimeout(0.5)  # nothing more is to be expected
            closed = True
        except TimeoutError:
            closed = False
        except (BrokenPipeError, ConnectionResetError):
            closed = True
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)], closed


def check_alive(address: tuple[str, int]) -> None:
    assert talk(address, HEAD + LENGTH + b"Connection: close\r\n\r\n" + BODY) == ([200], True)


@pytest.mark.parametrize(
    "request_bytes",
    [
        HEAD + LENGTH + CHUNKED + b"\r\n" + CHUNKS + NEXT,
        HEAD + CHUNKED + LENGTH + b"\r\n" + CHUNKS + NEXT,
        HEAD + CHUNKED + b"Content-Length: 0\r\n\r\n" + CHUNKS + NEXT,
        HEAD + CHUNKED + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n" + CHUNKS + NEXT,
    ],
)
def test_two_lengths_end_the_connection(address: tuple[str, int], request_bytes: bytes) -> None:
    statuses, closed = talk(address, request_bytes)
    assert statuses == [400]
    assert closed
    check_alive(address)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x00" * 100 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200 + b"\r\n\r\n",  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET  /  HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: evil\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n folded: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 20_000 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"TRACE /v1/rerank HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"TRACE / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        HEAD + b"Content-Length: -1\r\n\r\n" + BODY,
        HEAD + b"Content-Length: 5, 6\r\n\r\n" + BODY,
        HEAD + b"Content-Length: 0x10\r\n\r\n" + BODY,
        HEAD + b"Content-Length: 99999999999999999999\r\n\r\n" + BODY,
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + BODY,
        HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKS,
        HEAD + b"Transfer-Encoding: identity\r\n\r\n" + BODY,
        HEAD + CHUNKED + b"\r\nzz\r\n" + BODY,
        HEAD + CHUNKED + b"\r\n-1\r\n" + BODY,
        HEAD + CHUNKED + b"\r\n5\r\nabcdefgh\r\n0\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused_and_the_next_caller_served(
    address: tuple[str, int], request_bytes: bytes
) -> None:
    statuses, _ = talk(address, request_bytes)
    assert all(status < 500 or status == 501 for status in statuses)
    assert not (b"evil" in request_bytes and 200 in statuses)
    check_alive(address)


@pytest.mark.parametrize(
    "request_bytes",
    [
        *((HEAD + LENGTH + b"\r\n" + BODY)[:length] for length in (0, 1, 20, len(HEAD), len(HEAD + LENGTH) + 12)),
        HEAD + CHUNKED + b"\r\n28\r\n",
        HEAD + CHUNKED + b"\r\nffffffffffffffffff\r\n" + BODY,
    ],
)
def test_half_a_request_is_no_error_of_the_server(address: tuple[str, int], request_bytes: bytes) -> None:
    statuses, closed = talk(address, request_bytes, end=True)
    assert all(status < 500 for status in statuses)
    assert closed
    check_alive(address)


def test_pipelined_requests_are_answered_in_order(address: tuple[str, int]) -> None:
    statuses, _ = talk(address, (HEAD + LENGTH + b"\r\n" + BODY + NEXT) * 3)
    assert statuses == [200] * 6
