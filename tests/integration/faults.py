"""Faults on the way between a client and a real server: a TCP proxy that misbehaves when told to."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Coroutine
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
THREAD_NAME = "fault-proxy"
CHANGE_TIMEOUT_S = 10.0
CHUNK_BYTES = 2**16
GARBAGE = b"\x00\x00\x08\x06\xff\xff\xff\xff\xffgarbage\r\n\r\n"  # neither HTTP nor HTTP/2: a PING on a stream
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER with 0 seconds: close() sends RST and not FIN


class Fault(enum.Enum):
    """What a FaultProxy does.

    Attributes:
        PASS: Forwards everything.
        REFUSE: Refuses connections, and resets those that are open.
        RESET: Forwards the first bytes of an answer, then resets the connection.
        SLOW: Forwards answers a byte at a time, with a pause before each.
        GARBAGE: Answers bytes of its own to whatever it gets.
        HALF_CLOSED: Reads, ends its own direction, and goes on reading.
        SILENT: Reads, and never answers.
    """

    PASS = enum.auto()
    REFUSE = enum.auto()
    RESET = enum.auto()
    SLOW = enum.auto()
    GARBAGE = enum.auto()
    HALF_CLOSED = enum.auto()
    SILENT = enum.auto()


class FaultProxy:
    """A proxy on a free port of the loopback, in a thread of its own. Use it as a context manager.

    A change of its behaviour holds for connections that are open and for new ones. Connections on which requests were
    lost are reset by the next change, for they cannot be continued.

    Args:
        target: "HOST:PORT" of the server behind it.
        tls: Terminates TLS, and speaks plain to the server. It does not know HALF_CLOSED: TLS has no half-closing.

    Attributes:
        connections: How many it has accepted.
    """

    def __init__(self, target: str, tls: ssl.SSLContext | None = None) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._tls = tls
        self._fault = Fault.PASS
        self._bytes_before_reset = 0
        self._pause_s = 0.0
        self._garbage = GARBAGE
        self._faults_left: int | None = None
        self._open: set[_Connection] = set()
        self._listening = False
        self._bound: socket.socket | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name=THREAD_NAME, daemon=True)
        self.connections = 0
        self.port = 0

    @property
    def address(self) -> str:
        """Where clients connect to: "HOST:PORT"."""
        return f"{HOST}:{self.port}"

    def behave(
        self,
        fault: Fault,
        *,
        bytes_before_reset: int = 150,
        pause_s: float = 0.05,
        garbage: bytes = GARBAGE,
        times: int | None = None,
    ) -> None:
        """Change the behaviour; it has changed when this returns.

        Args:
            fault: The new one.
            bytes_before_reset: For RESET, counted per connection from now on or from its beginning. The default is
                more than what HTTP/2 greets with, and less than any answer to an inference request.
            pause_s: For SLOW, seconds before each byte.
            garbage: For GARBAGE.
            times: RESET and GARBAGE end after so many, and PASS follows. None: they do not end.
        """

        async def change() -> None:
            self._fault, self._bytes_before_reset, self._pause_s = fault, bytes_before_reset, pause_s
            self._garbage, self._faults_left = garbage, times
            await self._reset({connection for connection in self._open if connection.spoiled})
            if fault is Fault.REFUSE:
                await self._refuse()
            elif not self._listening:
                self._listen()

        self._call(change())

    def __enter__(self) -> Self:
        """Begin to listen."""
        self._bind()
        self._listen()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End all connections and the thread."""
        self._call(self._refuse())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        assert self._bound is not None
        self._bound.close()

    def _call(self, change: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(change, self._loop).result(CHANGE_TIMEOUT_S)

    def _run_loop(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_forever()
            self._loop.run_until_complete(asyncio.sleep(0))  # what was closed last is gone one turn later

    def _bind(self) -> None:
        """Take the port. A socket that is bound and does not listen refuses connections, and keeps the port."""
        self._bound = socket.socket()
        self._bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._bound.bind((HOST, self.port))
        self._bound.setblocking(False)
        self.port = self._bound.getsockname()[1]

    def _listen(self) -> None:
        assert self._bound is not None
        self._bound.listen()
        self._loop.add_reader(self._bound, self._accept)
        self._listening = True

    async def _refuse(self) -> None:
        if self._listening:
            assert self._bound is not None
            self._loop.remove_reader(self._bound)
            self._bound.close()
            self._bind()
            self._listening = False
        await self._reset(self._open)

    async def _reset(self, connections: set[_Connection]) -> None:
        tasks = [connection.reset() for connection in connections]
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self) -> None:
        assert self._bound is not None
        try:
            accepted, _ = self._bound.accept()
        except OSError:  # the client has gone again
            return
        self.connections += 1
        connection = _Connection(accepted)
        connection.task = self._loop.create_task(self._serve(connection))
        connection.task.add_done_callback(lambda _: self._end(connection))
        self._open.add(connection)

    def _end(self, connection: _Connection) -> None:
        connection.socket.close()  # still open if the task ended before its first step
        self._open.discard(connection)

    async def _serve(self, connection: _Connection) -> None:
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        with contextlib.suppress(OSError):  # the handshake failed, or no server is there
            transport, _ = await self._loop.connect_accepted_socket(lambda: protocol, connection.socket, ssl=self._tls)
            to_client = asyncio.StreamWriter(transport, protocol, reader, self._loop)
            async with _closing(to_client):
                from_server, to_server = await asyncio.open_connection(*self._target)
                async with _closing(to_server):
                    pumps = [
                        self._loop.create_task(self._pump_requests(connection, reader, to_client, to_server)),
                        self._loop.create_task(self._pump_answers(connection, from_server, to_client)),
                    ]
                    try:
                        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        for pump in pumps:
                            pump.cancel()
                        await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump_requests(
        self,
        connection: _Connection,
        reader: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
        to_server: asyncio.StreamWriter,
    ) -> None:
        while data := await reader.read(CHUNK_BYTES):
            if self._fault in (Fault.GARBAGE, Fault.HALF_CLOSED, Fault.SILENT):
                connection.spoiled = True
            if self._fault is Fault.GARBAGE:
                to_client.write(self._garbage)
                self._count_fault()
            elif self._fault is Fault.HALF_CLOSED:
                to_client.write_eof()
            elif not connection.spoiled:
                to_server.write(data)
                await to_server.drain()

    async def _pump_answers(
        self, connection: _Connection, reader: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        forwarded, fault = 0, self._fault
        while data := await reader.read(CHUNK_BYTES):
            if self._fault is not fault:
                forwarded, fault = 0, self._fault
            if fault is Fault.RESET and forwarded + len(data) > self._bytes_before_reset:
                to_client.write(data[: self._bytes_before_reset - forwarded])
                await to_client.drain()
                self._count_fault()
                connection.reset()
                return
            while fault is Fault.SLOW and self._fault is fault and data:
                to_client.write(data[:1])
                data = data[1:]
                await asyncio.sleep(self._pause_s)
            if not connection.spoiled:
                to_client.write(data)
                await to_client.drain()
            forwarded += len(data)

    def _count_fault(self) -> None:
        if self._faults_left is not None:
            self._faults_left -= 1
            if self._faults_left == 0:
                self._fault = Fault.PASS


class _Connection:
    """A connection of a client.

    Args:
        accepted: Its socket.

    Attributes:
        spoiled: The server has missed bytes, so nothing can follow them.
        task: Serves it.
    """

    def __init__(self, accepted: socket.socket) -> None:
        self.socket = accepted
        self.spoiled = False
        self.task: asyncio.Task[None] | None = None

    def reset(self) -> asyncio.Task[None]:
        """End it with RST; the task ends a little later."""
        with contextlib.suppress(OSError):  # it is closed
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        assert self.task is not None
        self.task.cancel()
        return self.task


@contextlib.asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    """Close on the way out, at once if the task was cancelled."""
    try:
        yield
    except asyncio.CancelledError:
        writer.transport.abort()
        raise
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
