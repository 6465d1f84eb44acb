"""Connections over real sockets: who keeps the gateway waiting is cut off, and who does not is left alone."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from lychee_server.gateway import process_limits
from lychee_server.gateway.answer_pieces import PIECE_BYTES, AnswerPieces
from lychee_server.gateway.connections import (
    ANSWER_TIMEOUT_S,
    HEAD_TIMEOUT_S,
    MAX_CONNECTIONS,
    STALL_TIMEOUT_S,
    GuardedProtocol,
    cut_off_slow,
)
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

TIMEOUT_S = 30
LARGE_BYTES = 30 * 2**20
REQUEST = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"
HALF = b"POST /v1/rerank HTTP/1.1\r\nHost: localhost\r\nX-Slow: "


@dataclass
class Served:
    """A server on the loopback, whose app answers `/large` with many bytes and `/held` when the test lets it."""

    state: ServerState = field(default_factory=ServerState)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    held: asyncio.Event = field(default_factory=asyncio.Event)
    notes: list[str] = field(default_factory=list)
    port: int = 0

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b"x" * LARGE_BYTES if scope["path"] == "/large" else b"ok"
        if scope["path"] == "/held":
            self.held.set()
            await self.release.wait()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def connect(self, *, receive_buffer: int | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        return await asyncio.open_connection(sock=sock, limit=2**10)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while not condition():
                await asyncio.sleep(0.01)

    def pass_time(self, seconds: float) -> None:
        """Look at the connections as if so much time had passed."""
        cut_off_slow(self.state.connections, asyncio.get_running_loop().time() + seconds, self.notes.append)

    def one(self) -> GuardedProtocol:
        (connection,) = self.state.connections
        assert isinstance(connection, GuardedProtocol)
        return connection


@contextlib.asynccontextmanager
async def serve() -> AsyncIterator[Served]:
    served = Served()
    config = uvicorn.Config(AnswerPieces(served.app), http=GuardedProtocol, ws="none", lifespan="off", log_config=None)
    config.load()
    make: Any = lambda: GuardedProtocol(config, served.state, {})  # noqa: E731
    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        served.release.set()
        for connection in tuple(served.state.connections):
            connection.abort()  # type: ignore[union-attr]
        await served.until(lambda: not served.state.tasks)
        server.close()
        await server.wait_closed()


def run(work: Callable[[Served], Awaitable[None]]) -> None:
    async def main() -> None:
        async with serve() as served:
            await work(served)

    asyncio.run(main())


async def is_closed(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(TIMEOUT_S):
        with contextlib.suppress(ConnectionResetError):
            return await reader.read(1) == b""
        return True


@pytest.mark.parametrize("sent", [b"", HALF])
def test_half_a_head_is_cut_off_after_its_time(sent: bytes) -> None:
    async def work(served: Served) -> None:
        reader, writer = await served.connect()
        writer.write(sent)
        await served.until(lambda: len(served.state.connections) == 1)
        served.pass_time(HEAD_TIMEOUT_S - 5)
        assert served.state.connections
        served.pass_time(HEAD_TIMEOUT_S + 1)
        assert await is_closed(reader)
        assert served.notes == ["slow"]
        writer.close()

    run(work)


def test_bytes_now_and_then_win_no_time() -> None:
    async def work(served: Served) -> None:
        reader, writer = await served.connect()
        writer.write(REQUEST % b"/")
        await reader.readuntil(b"ok")
        writer.write(HALF)
        await served.until(lambda: served.one()._head_began_s is not None)
        began_s = served.one()._head_began_s
        heard_s = served.one().heard_s
        writer.write(b"x")
        await served.until(lambda: served.one().heard_s > heard_s)
        assert served.one()._head_began_s == began_s
        writer.close()

    run(work)


def test_an_idle_connection_and_one_that_waits_for_its_answer_are_left_alone() -> None:
    async def work(served: Served) -> None:
        idle_reader, idle_writer = await served.connect()
        idle_writer.write(REQUEST % b"/")
        await idle_reader.readuntil(b"ok")
        reader, writer = await served.connect()
        writer.write(REQUEST % b"/held")
        await served.held.wait()
        served.pass_time(10_000)
        served.release.set()
        async with asyncio.timeout(TIMEOUT_S):
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        assert len(served.state.connections) == 2
        assert served.notes == []
        writer.close()
        idle_writer.close()

    run(work)


def test_a_reader_who_takes_nothing_is_cut_off_and_the_answer_is_let_go() -> None:
    async def work(served: Served) -> None:
        _, writer = await served.connect(receive_buffer=4096)
        writer.write(REQUEST % b"/large")
        await served.until(lambda: bool(served.state.connections) and served.one()._paused_s is not None)
        buffered = served.one().transport.get_write_buffer_size()
        assert buffered <= 2 * PIECE_BYTES + 65536
        served.pass_time(STALL_TIMEOUT_S - 5)
        assert served.state.tasks
        served.pass_time(STALL_TIMEOUT_S + 1)
        await served.until(lambda: not served.state.tasks)
        assert served.notes == ["slow"]
        writer.close()

    run(work)


def test_a_reader_who_takes_too_little_is_cut_off() -> None:
    async def work(served: Served) -> None:
        _, writer = await served.connect(receive_buffer=4096)
        writer.write(REQUEST % b"/large")
        await served.until(lambda: bool(served.state.connections) and served.one()._paused_s is not None)
        served.one()._stood_still_s = ANSWER_TIMEOUT_S - 1
        served.pass_time(2)
        await served.until(lambda: not served.state.tasks)
        writer.close()

    run(work)


def test_a_large_answer_arrives_whole() -> None:
    async def work(served: Served) -> None:
        reader, writer = await served.connect()
        writer.write(REQUEST % b"/large")
        async with asyncio.timeout(TIMEOUT_S):
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(LARGE_BYTES) == b"x" * LARGE_BYTES
        assert served.one()._stood_still_s == 0.0 or not served.one()._has_request
        writer.close()

    run(work)


def test_a_new_connection_takes_the_place_of_one_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GuardedProtocol, "max_connections", 3)

    async def work(served: Served) -> None:
        busy_reader, busy_writer = await served.connect()
        busy_writer.write(REQUEST % b"/held")
        await served.held.wait()
        halves = []
        for _ in range(2):
            halves.append(await served.connect())
            halves[-1][1].write(HALF)
            await served.until(lambda: len(served.state.connections) == 1 + len(halves))
        reader, writer = await served.connect()
        writer.write(REQUEST % b"/health/live")
        async with asyncio.timeout(TIMEOUT_S):
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        assert await is_closed(halves[0][0])
        served.release.set()
        async with asyncio.timeout(TIMEOUT_S):
            assert (await busy_reader.readline()).startswith(b"HTTP/1.1 200")
        for _, each in (*halves, (reader, writer), (busy_reader, busy_writer)):
            each.close()

    run(work)


@pytest.mark.parametrize("own_session", [True, False])
def test_a_gateway_with_a_session_of_its_own_yields_to_the_model_server(own_session: bool) -> None:
    group = Path("/proc/self/autogroup")
    before = group.read_text(encoding="ascii").split() if group.exists() else []
    if not before:  # the file may be there and empty
        pytest.skip("this kernel does not group by sessions")
    program = (
        "from lychee_server.gateway.process_limits import yield_to_model_server\n"
        "yield_to_model_server()\n"
        "print(open('/proc/self/autogroup').read())"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], start_new_session=own_session, check=True, stdout=subprocess.PIPE, text=True
    )
    expected = str(process_limits.SESSION_NICENESS) if own_session else before[-1]
    assert found.stdout.split()[-1] == expected


def test_as_many_connections_as_files_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(256, 512)]
    monkeypatch.setattr(process_limits.resource, "getrlimit", lambda kind: limits[-1])
    monkeypatch.setattr(process_limits.resource, "setrlimit", lambda kind, values: limits.append(values))
    assert process_limits.raise_file_limit() == 512 - process_limits.SPARE_FILES
    assert limits[-1] == (512, 512)
    limits[:] = [(4096, 4096)]
    assert process_limits.raise_file_limit() == MAX_CONNECTIONS
    assert limits == [(4096, 4096)]
