"""What greedy callers send: large images, answers that nobody reads, connections that say nothing."""

from __future__ import annotations

import base64
import http.client
import io
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import numpy as np
import PIL.Image

__all__ = ["LOADS", "Load", "post"]

A4_AT_600_DPI: Final = (4960, 7016)
LARGE_EDGE: Final = 7874  # 62 megapixels
LARGEST_EDGE: Final = 7999
PHOTO_SIZE: Final = (4000, 3000)
ECHOED_MIB: Final = 57
HALF_OPEN: Final = 1005
TIMEOUT_S: Final = 120.0
_RECEIVE_BUFFER: Final = 4096


class Event(Protocol):
    """An event of threads or processes."""

    def is_set(self) -> bool:
        """Say whether it has happened."""

    def wait(self) -> object:
        """Wait until it has."""


Job = Callable[[str, Event], None]


@dataclass(frozen=True)
class Load:
    """Callers that are greedy in one way.

    Attributes:
        name: What they do, for the table.
        callers: How many there are at the same time.
        make: Prepares what they send, and returns what each of them does again and again: it is given the gateway's
            URL, and an event that is set when it should come to an end.
    """

    name: str
    callers: int
    make: Callable[[], Job]


def post(url: str, body: bytes, timeout_s: float = TIMEOUT_S) -> int:
    """Ask for a ranking on a connection of its own, read the answer, and return its status."""
    connection = _connect(url, timeout_s)
    try:
        connection.request("POST", "/v1/rerank", body, {"content-type": "application/json"})
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


def _connect(url: str, timeout_s: float) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    assert parts.hostname is not None
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)


def _pages() -> list[bytes]:
    """Return eight pages, mostly white, with lines of something like letters: about 150 kB each."""
    rng = np.random.default_rng(0)
    width, height = A4_AT_600_DPI
    pages = []
    for _ in range(8):
        pixels = np.full((height, width), 255, np.uint8)
        for top in range(400, height - 400, 600):
            letters = rng.integers(0, 2, (32, (width - 800) // 2), np.uint8) * np.uint8(255)
            pixels[top : top + 64, 400 : width - 400] = letters.repeat(2, 0).repeat(2, 1)
        pages.append(_encode(PIL.Image.fromarray(pixels)))
    return pages


def _squares(edge: int, mode: str, count: int) -> list[bytes]:
    """Return images of one size that compress to 200 to 300 kB each."""
    places = np.arange(edge) // 64
    images = []
    for number in range(count):
        gray = ((places[:, None] + places[None] + number) % 256).astype(np.uint8)
        image = PIL.Image.fromarray(gray).convert(mode)
        if mode == "RGBA":
            image.putalpha(128)
        images.append(_encode(image))
    return images


def _photos(count: int) -> list[bytes]:
    """Return JPEG files of 12 megapixels."""
    rng = np.random.default_rng(1)
    photos = []
    for _ in range(count):
        coarse = PIL.Image.fromarray(rng.integers(0, 256, (75, 100, 3), np.uint8))
        photos.append(_encode(coarse.resize(PHOTO_SIZE, PIL.Image.Resampling.BILINEAR), "JPEG"))
    return photos


def _encode(image: PIL.Image.Image, name: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, name)
    return stream.getvalue()


def _rank(make_images: Callable[[], list[bytes]], **options: Any) -> Callable[[], Job]:
    """Return what makes callers that have these images ranked; some bytes after its end make each image a new one."""

    def make() -> Job:
        images = [base64.b64encode(image + bytes(-len(image) % 3)) for image in make_images()]
        head = json.dumps(options)[1:-1].encode() + (b"," if options else b"")

        def call(url: str, ending: Event) -> None:
            query = f"{time.time_ns()}".encode()
            documents = [
                b'{"image":"data:image/png;base64,' + image + base64.b64encode(query) + b'"}' for image in images
            ]
            post(url, b"{" + head + b'"query":"' + query + b'","documents":[' + b",".join(documents) + b"]}")

        return call

    return make


def _ask_and_leave_unread() -> Job:
    body = json.dumps(
        {"query": "unread", "documents": [{"text": "a " * (ECHOED_MIB * 2**19)}], "return_documents": True}
    ).encode()

    def call(url: str, ending: Event) -> None:
        connection = _connect(url, TIMEOUT_S)
        try:
            connection.connect()
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            connection.request("POST", "/v1/rerank", body, {"content-type": "application/json"})
            connection.sock.recv(1, socket.MSG_PEEK)
            ending.wait()
        finally:
            connection.close()

    return call


def _stay_half_open() -> Job:
    def call(url: str, ending: Event) -> None:
        parts = urlsplit(url)
        opened = []
        try:
            for _ in range(HALF_OPEN):
                connection = socket.create_connection((parts.hostname, parts.port or 80), TIMEOUT_S)
                connection.sendall(b"POST /v1/rerank HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
                opened.append(connection)
            ending.wait()
        finally:
            for connection in opened:
                connection.close()

    return call


def run_caller(job: Job, url: str, ending: Event) -> None:
    """Be one greedy caller until the end."""
    while not ending.is_set():
        with suppress(OSError, http.client.HTTPException):  # the gateway may well cut it off
            job(url, ending)


def _loads() -> Iterator[Load]:
    yield Load("8 A4 pages at 600 dpi", 1, _rank(_pages))
    yield Load("the same, bulk", 1, _rank(_pages, priority="bulk"))
    yield Load("three such calls", 3, _rank(_pages))
    yield Load("3 calls with 8 PNGs of 62 megapixels", 3, _rank(lambda: _squares(LARGE_EDGE, "RGB", 8)))
    yield Load("30 JPEGs of 12 megapixels", 1, _rank(lambda: _photos(30)))
    yield Load("the same, bulk", 1, _rank(lambda: _photos(30), priority="bulk"))
    yield Load("2 RGBA PNGs of 7,999 x 7,999", 1, _rank(lambda: _squares(LARGEST_EDGE, "RGBA", 2)))
    yield Load(f"10 readers that leave {ECHOED_MIB} MiB unread", 10, _ask_and_leave_unread)
    yield Load(f"{HALF_OPEN:,} half-open connections", 1, _stay_half_open)


LOADS: Final = tuple(_loads())
