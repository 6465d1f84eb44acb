"""Whether a server runs for a state folder, said by itself: no file that can be lost, no clock that can be set.

Who supervises a server holds a name in the kernel's list of abstract sockets. The name comes from the marker of the
state folder, exists once, and goes when the last process that holds it ends. Whoever connects learns from the kernel
which process it is, and from that process how the server is. Whoever sends a line first, has a request: the answer is
lines, until the supervisor closes the connection.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

__all__ = ["Found", "Presence", "find", "request"]

ANSWER_TIMEOUT_S: Final = 2.0
SILENCE_S: Final = 0.5  # who has said nothing for so long has no request
CHUNK_BYTES: Final = 2**16
CREDENTIALS: Final = struct.Struct("3i")  # pid, uid, gid


@dataclass(frozen=True, slots=True)
class Found:
    """Who holds the name.

    Attributes:
        pid: The process that supervises, or is about to.
        text: What it says of its server; empty if it has nothing to say yet, or does not answer.
    """

    pid: int
    text: str


class Presence:
    """Holds the name of a marker until it is closed, or until this process and all its forks have ended.

    Args:
        marker: The marker of the state folder.

    Raises:
        OSError: Another process holds the name (EADDRINUSE).
    """

    def __init__(self, marker: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._listener.bind(_address(marker))
        except OSError:
            self._listener.close()
            raise
        self._listener.listen()

    def answer(self, describe: Callable[[], str], take: Callable[[str], Iterable[str]]) -> None:
        """Answer from now on, in threads, as the process that holds the name.

        Args:
            describe: Returns what is to be said of the server.
            take: Takes a request, a line, and yields the lines of its answer. It goes on when nobody listens any more.
        """
        self._listener.listen()  # the kernel names who did so last
        threading.Thread(target=self._serve, args=(describe, take), name="presence", daemon=True).start()

    def _serve(self, describe: Callable[[], str], take: Callable[[str], Iterable[str]]) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=_answer, args=(connection, describe, take), daemon=True).start()

    def close(self) -> None:
        """Let go of the name, for the forks too."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._listener.close()


def find(marker: str) -> Found | None:
    """Return who holds the name of a marker; None if no process of this user does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_TIMEOUT_S)
        try:
            connection.connect(_address(marker))
            pid, uid = _read_peer(connection)
        except OSError:
            return None
        if uid != os.getuid():
            return None
        content = b""
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)  # no request
        with contextlib.suppress(OSError):
            while chunk := connection.recv(CHUNK_BYTES):
                content += chunk
        return Found(pid, content.decode(errors="replace"))


def request(marker: str, line: str) -> Iterator[str]:
    """Send a request to who holds the name of a marker, and yield the lines of its answer as they come.

    Raises:
        OSError: Nobody of this user holds it.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(_address(marker))
        if _read_peer(connection)[1] != os.getuid():
            raise PermissionError("another user's process")
        connection.sendall(line.encode() + b"\n")
        with contextlib.suppress(ConnectionError), connection.makefile(encoding="utf-8") as lines:
            for answer in lines:
                yield answer.rstrip("\n")


def _answer(connection: socket.socket, describe: Callable[[], str], take: Callable[[str], Iterable[str]]) -> None:
    with connection, contextlib.suppress(OSError):
        if _read_peer(connection)[1] not in (0, os.getuid()):
            return
        line = _read_line(connection)
        connection.settimeout(ANSWER_TIMEOUT_S)
        if not line:
            connection.sendall(describe().encode())
            return
        for answer in take(line):
            connection.sendall(answer.encode() + b"\n")


def _read_line(connection: socket.socket) -> str:
    """Return the request; empty if there is none."""
    content = b""
    connection.settimeout(SILENCE_S)
    with contextlib.suppress(TimeoutError):
        while not content.endswith(b"\n") and (chunk := connection.recv(CHUNK_BYTES)):
            content += chunk
    return content.decode(errors="replace").strip()


def _address(marker: str) -> bytes:
    return b"\0lychee-rerank/" + marker.encode()


def _read_peer(connection: socket.socket) -> tuple[int, int]:
    """Return pid and uid of the other end."""
    pid, uid, _ = CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
    return pid, uid
