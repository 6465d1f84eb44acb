"""Passes connections on, byte by byte: to a server that may be another one with the next connection."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

__all__ = ["Relay"]

CHUNK_BYTES: Final = 2**16


class Relay:
    """Accepts connections in threads of its own until it is closed. One whose server does not answer is closed.

    Args:
        listener: A socket that listens; it is closed with the relay.
        connect: Returns a connection to the server, or raises OSError.

    Attributes:
        port: Where it listens.
    """

    def __init__(self, listener: socket.socket, connect: Callable[[], socket.socket]) -> None:
        self.port: int = listener.getsockname()[1]
        self._listener = listener
        self._connect = connect
        threading.Thread(target=self._accept, name=f"relay {self.port}", daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._pass_on, args=(caller,), daemon=True).start()

    def _pass_on(self, caller: socket.socket) -> None:
        with caller, contextlib.suppress(OSError), self._connect() as server:
            back = threading.Thread(target=_copy, args=(server, caller), daemon=True)
            back.start()
            _copy(caller, server)
            back.join()

    def close(self) -> None:
        """Accept no more; what is connected stays."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._listener.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Accept no more."""
        self.close()


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Copy until the source ends, and say so to the target."""
    with contextlib.suppress(OSError):
        while chunk := source.recv(CHUNK_BYTES):
            target.sendall(chunk)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
