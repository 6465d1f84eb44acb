"""Which of several servers that listen on one port get its new connections: decided by us, not by chance.

Sockets that share a port (SO_REUSEPORT) are a group in the kernel, in the order in which they began to listen, and a
program that any of them brings along chooses one by its place. So a new server can stand beside the old one without
a connection, until all new connections are to go to it. When a socket of the group closes, the last one takes its
place. Connections that exist stay where they are. None of this needs rights.

Source: https://man7.org/linux/man-pages/man7/socket.7.html, SO_ATTACH_REUSEPORT_CBPF; linux/net/core/sock_reuseport.c
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import threading
from pathlib import Path
from typing import Final

from lychee_server.addresses import family_of
from lychee_server.errors import LycheeServerError
from lychee_server.local_http import reachable_host

__all__ = ["PortSteering", "count_listeners", "reserve"]

SO_ATTACH_REUSEPORT_CBPF: Final = 51
SO_DETACH_REUSEPORT_BPF: Final = 68
LISTENING: Final = "0A"
TABLES: Final = {socket.AF_INET: Path("/proc/net/tcp"), socket.AF_INET6: Path("/proc/net/tcp6")}
# Classic BPF: what an instruction does, https://www.kernel.org/doc/html/latest/networking/filter.html
LOAD_WORD: Final = 0x20
LOAD_HALF: Final = 0x28
ADD: Final = 0x04
MODULO: Final = 0x94
JUMP_IF_EQUAL: Final = 0x15
RETURN: Final = 0x06
RETURN_SUM: Final = 0x16
PROTOCOL: Final = 0xFFFFF000  # of the packet, as Ethernet numbers them
RANDOM: Final = 0xFFFFF000 + 56
NETWORK_HEADER: Final = 0xFFF00000
SOURCE_PORT: Final = {0x0800: NETWORK_HEADER + 20, 0x86DD: NETWORK_HEADER + 40}  # behind the header of IPv4 or IPv6
INSTRUCTION: Final = struct.Struct("HBBI")
PROGRAM: Final = struct.Struct("HP")
CONNECT_TIMEOUT_S: Final = 5.0


def reserve(host: str, port: int) -> socket.socket:
    """Return a socket that keeps a port for the servers of this user that share it: others find it taken.

    Raises:
        OSError: It is taken.
    """
    keeper = socket.socket(family_of(host), socket.SOCK_STREAM)
    try:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        keeper.bind((host, port))
    except OSError:
        keeper.close()
        raise
    return keeper


def count_listeners(port: int) -> dict[socket.AddressFamily, int]:
    """Return how many sockets listen on a port, by family; without those that have none."""
    counts = {}
    for family, table in TABLES.items():
        lines = table.read_text(encoding="ascii").splitlines()[1:] if table.exists() else []
        rows = [line.split() for line in lines]
        count = sum(row[3] == LISTENING and int(row[1].rpartition(":")[2], 16) == port for row in rows)
        if count:
            counts[family] = count
    return counts


class PortSteering:
    """Decides about one port on which one server listens, until it is closed. Safe to use from several threads.

    First all new connections go to the server that listens now. A second one may begin to listen, and gets none but
    those of `connect`, until `switch`.

    Args:
        host: The address that the servers listen on.
        port: The port.

    Raises:
        LycheeServerError: This system or the server does not let us.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        found = count_listeners(port)
        if len(found) != 1:
            raise LycheeServerError(
                f"{sum(found.values())} sockets listen on port {port}; expected those of one server"
            )
        ((self._family, self._old),) = found.items()
        self._ours: list[socket.socket] = []
        self._private: dict[int, int] = {}
        self._chosen = (0, self._old)
        self._lock = threading.Lock()
        try:
            self._listen()
            self._choose()
        except OSError as error:
            self.close()
            raise LycheeServerError(
                f"two servers cannot share port {port} on this system ({error.strerror}): stop the one that runs with "
                "`lychee stop`, and start the other with `lychee load`"
            ) from error

    def connect(self, *, new: bool) -> socket.socket:
        """Return a connection to the new or the old server, whoever gets the others.

        Raises:
            OSError: It does not answer.
        """
        host = reachable_host(self._host)
        connection = socket.socket(family_of(host), socket.SOCK_STREAM)
        try:
            connection.bind((host, 0))
            port = connection.getsockname()[1]
            with self._lock:
                self._private[port] = self._old + 1 if new else 0
                self._choose()
            try:
                connection.settimeout(CONNECT_TIMEOUT_S)
                connection.connect((host, self._port))
                connection.settimeout(None)
            finally:
                with self._lock:
                    del self._private[port]
                    self._choose()
        except OSError:
            connection.close()
            raise
        return connection

    def switch(self) -> None:
        """Send all new connections to the new server, also while the old one closes its sockets.

        Raises:
            LycheeServerError: The new server does not listen.
        """
        new = count_listeners(self._port).get(self._family, 0) - self._old - len(self._ours)
        if new < 1:
            raise LycheeServerError(f"the new server does not listen on port {self._port}")
        with self._lock:
            for _ in range(self._old):  # to take the places of those of the old one: the last one moves
                self._listen()
            self._chosen = (self._old + 1, new)
            self._choose()

    def close(self) -> None:
        """Leave it to the kernel again."""
        with self._lock:
            if self._ours:
                with contextlib.suppress(OSError):
                    self._ours[0].setsockopt(socket.SOL_SOCKET, SO_DETACH_REUSEPORT_BPF, 0)
            while self._ours:
                self._ours.pop().close()

    def _listen(self) -> None:
        """Put one more socket of ours at the end of the group."""
        ours = socket.socket(self._family, socket.SOCK_STREAM)
        self._ours.append(ours)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        mapped = self._family == socket.AF_INET6 and ":" not in self._host  # gRPC's way to listen on IPv4
        if self._family == socket.AF_INET6:
            ours.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        ours.bind((f"::ffff:{self._host}" if mapped else self._host, self._port))
        ours.listen()

    def _choose(self) -> None:
        """Give the kernel the program: a place for each private connection, by its source port, and one for others."""
        if not self._ours:
            return
        first, count = self._chosen
        program = []
        for port, place in self._private.items():
            for protocol, offset in SOURCE_PORT.items():
                program += [
                    (LOAD_WORD, 0, 0, PROTOCOL),
                    (JUMP_IF_EQUAL, 0, 3, protocol),
                    (LOAD_HALF, 0, 0, offset),
                    (JUMP_IF_EQUAL, 0, 1, port),
                    (RETURN, 0, 0, place),
                ]
        program += [(LOAD_WORD, 0, 0, RANDOM), (MODULO, 0, 0, count), (ADD, 0, 0, first), (RETURN_SUM, 0, 0, 0)]
        code = ctypes.create_string_buffer(b"".join(INSTRUCTION.pack(*each) for each in program))
        described = PROGRAM.pack(len(program), ctypes.addressof(code))
        self._ours[0].setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, described)
