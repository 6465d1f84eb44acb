"""Connections that are passed on, to whichever server there is."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from lychee_server.processes import listen
from lychee_server.relay import Relay

TIMEOUT_S = 10.0


class Echo:
    """A server that answers every connection with its name and all that was sent."""

    def __init__(self, name: bytes) -> None:
        self._name = name
        self._listener = listen("127.0.0.1", 0)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as sent:
                connection.sendall(self._name + sent.read())

    def connect(self) -> socket.socket:
        return socket.create_connection(self._listener.getsockname(), timeout=TIMEOUT_S)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def servers() -> Iterator[list[Echo]]:
    made = [Echo(b"first "), Echo(b"second ")]
    yield made
    for server in made:
        server.close()


def ask(port: int, text: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as connection:
        connection.sendall(text)
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as answer:
            return answer.read()


def test_every_connection_goes_to_the_server_of_that_moment(servers: list[Echo]) -> None:
    current = servers[0]
    with Relay(listen("127.0.0.1", 0), lambda: current.connect()) as relay:
        large = b"x" * 2**20
        assert ask(relay.port, large) == b"first " + large
        current = servers[1]
        assert ask(relay.port, b"?") == b"second ?"


def test_a_server_that_is_away_costs_that_connection_alone(servers: list[Echo]) -> None:
    away = [True]

    def connect() -> socket.socket:
        if away.pop():
            raise ConnectionRefusedError
        return servers[0].connect()

    with Relay(listen("127.0.0.1", 0), connect) as relay:
        assert ask(relay.port, b"") == b""
        away.append(False)
        assert ask(relay.port, b"?") == b"first ?"


def test_a_closed_relay_accepts_nothing() -> None:
    relay = Relay(listen("127.0.0.1", 0), lambda: pytest.fail("nobody connected"))
    relay.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", relay.port), timeout=TIMEOUT_S)
