"""One caller must not starve the others: a text is answered whatever images and connections others come with.

Nothing here goes by the clock: decoding stands still until the text has been answered.
"""

from __future__ import annotations

import asyncio
import base64
import io
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import PIL.Image
import pytest
from fakes.dual_encoder import FakeTransport
from fastapi import FastAPI
from lychee_client import Image
from lychee_client.manifest.image_spec import ImageSpec
from lychee_client.preprocessing.image import PreparedImage
from lychee_server.gateway.app import create_app
from lychee_server.gateway.server import _Server
from lychee_server.gateway.service import Service
from lychee_server.gateway.settings import GatewaySettings
from lychee_server.processes import listen

TIMEOUT_S = 60
HALF_OPEN = 1100
SETTINGS = GatewaySettings(web=False, port=0, timeout_s=TIMEOUT_S)
LONG_TEXT = "a cat on a wall " * 100  # too long to be tokenized on the event loop
TEXT_CALL: dict[str, Any] = {"query": "a cat", "documents": [LONG_TEXT]}


@pytest.fixture(autouse=True)
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LYCHEE_CACHE_DIR", str(tmp_path))


@pytest.fixture
def app() -> FastAPI:
    return create_app(SETTINGS, service=Service(SETTINGS, transport=FakeTransport()))


async def until_ready(app: FastAPI) -> None:
    """Wait until the gateway has proved its models, which takes images too."""
    async with asyncio.timeout(TIMEOUT_S):
        while app.state.service.health.state != "ready":
            await asyncio.sleep(0.05)


class Standstill:
    """Decoding that does not go on until it is let, from when the gateway is ready."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go_on = threading.Event()
        self.is_on = False
        self.begun = threading.Semaphore(0)
        prepare = Image.prepare

        def stand_still(image: Image, spec: ImageSpec, *, keep: bool = True) -> PreparedImage:
            if self.is_on:
                self.begun.release()
                assert self.go_on.wait(4 * TIMEOUT_S)
            return prepare(image, spec, keep=keep)

        monkeypatch.setattr(Image, "prepare", stand_still)

    async def begin(self, app: FastAPI) -> None:
        """Stand still once the gateway is ready."""
        await until_ready(app)
        self.is_on = True


@pytest.fixture
def standstill(monkeypatch: pytest.MonkeyPatch) -> Iterator[Standstill]:
    found = Standstill(monkeypatch)
    yield found
    found.go_on.set()


def image_call(edges: list[int], **options: Any) -> dict[str, Any]:
    documents = []
    for edge in edges:
        stream = io.BytesIO()
        PIL.Image.new("L", (edge, edge), edge % 256).save(stream, "PNG")
        documents.append({"image": f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"})
    return {"query": "pages", "documents": documents, **options}


@pytest.mark.parametrize("priority", ["interactive", "bulk"])
def test_a_text_is_answered_while_all_decoding_stands_still(
    app: FastAPI, standstill: Standstill, priority: str
) -> None:
    async def work() -> None:
        asking = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")
        async with app.router.lifespan_context(app), asking as ask:
            await standstill.begin(app)
            body = image_call(list(range(50, 62)), priority=priority)
            greedy = [asyncio.create_task(ask.post("/v1/rerank", json=body)) for _ in range(3)]
            await asyncio.to_thread(standstill.begun.acquire, timeout=TIMEOUT_S)
            for _ in range(5):
                answer = await ask.post("/v1/rerank", json=TEXT_CALL, timeout=TIMEOUT_S)
                assert (answer.status_code, len(answer.json()["results"])) == (200, 1)
            assert not any(task.done() for task in greedy)
            standstill.go_on.set()
            for task in greedy:
                assert len((await task).json()["results"]) == 12

    asyncio.run(work())


def test_a_small_image_passes_large_ones(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    large, small = 4200, 40  # 17 megapixels in gray take more than a small image may
    go_on, begun = threading.Event(), threading.Event()
    prepare = Image.prepare

    def stand_still_if_large(image: Image, spec: ImageSpec, *, keep: bool = True) -> PreparedImage:
        if image.weigh(spec) > 2**24:
            begun.set()
            assert go_on.wait(4 * TIMEOUT_S)
        return prepare(image, spec, keep=keep)

    monkeypatch.setattr(Image, "prepare", stand_still_if_large)

    async def work() -> None:
        asking = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")
        async with app.router.lifespan_context(app), asking as ask:
            await until_ready(app)
            greedy = asyncio.create_task(ask.post("/v1/rerank", json=image_call([large] * 3)))
            await asyncio.to_thread(begun.wait, TIMEOUT_S)
            answer = await ask.post("/v1/rerank", json=image_call([small]))
            assert (answer.status_code, len(answer.json()["results"])) == (200, 1)
            assert not greedy.done()
            go_on.set()
            assert len((await greedy).json()["results"]) == 3

    asyncio.run(work())


def test_probes_and_calls_get_in_beside_more_half_open_connections_than_fit(app: FastAPI) -> None:
    """Only file descriptors bound what is open here: twice as many as the connections, for both ends."""

    async def work() -> None:
        with listen("127.0.0.1", 0) as listener:
            server = _Server(app, SETTINGS, listener)
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            port = listener.getsockname()[1]
            opened: list[socket.socket] = []
            try:
                while not server.started:
                    await asyncio.sleep(0.01)
                for _ in range(HALF_OPEN):
                    opened.append(socket.create_connection(("127.0.0.1", port), TIMEOUT_S))
                    opened[-1].sendall(b"POST /v1/rerank HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
                    await asyncio.sleep(0)
                async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as ask:
                    for path in ("/health/live", "/metrics"):
                        assert (await ask.get(path, timeout=TIMEOUT_S)).status_code == 200
                    answer = await ask.post("/v1/rerank", json=TEXT_CALL, timeout=TIMEOUT_S)
                    assert answer.status_code == 200
                assert len(server.server_state.connections) < HALF_OPEN
            finally:
                for connection in opened:
                    connection.close()
                server.should_exit = True
                await serving

    asyncio.run(work())
