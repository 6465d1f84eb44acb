"""Two servers on one port of the real kernel: which one gets the new connections."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest
from lychee_server.errors import LycheeServerError
from lychee_server.processes import pick_free_ports
from lychee_server.steering import PortSteering, count_listeners, reserve

TIMEOUT_S = 10.0
MANY = 30


class Server:
    """Listens with several sockets, as gRPC does; none of them is served by a thread."""

    def __init__(self, port: int, sockets: int) -> None:
        self.sockets = []
        for _ in range(sockets):
            made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            self.sockets.append(made)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            made.bind(("127.0.0.1", port))
            made.listen(1024)
            made.setblocking(False)

    def accept_all(self) -> int:
        """Return how many connections have come since the last time."""
        count = 0
        for each in self.sockets:
            while True:
                try:
                    each.accept()[0].close()
                except BlockingIOError:
                    break
                count += 1
        return count

    def close(self) -> None:
        for each in self.sockets:
            each.close()


@pytest.fixture
def port() -> int:
    return pick_free_ports("127.0.0.1", 1)[0]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def connect(port: int, times: int = MANY) -> None:
    for _ in range(times):
        socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S).close()


@pytest.mark.parametrize(("old_sockets", "new_sockets"), [(1, 1), (2, 1), (2, 4)])
def test_the_new_one_gets_nothing_until_the_switch_and_then_all(
    port: int, stack: ExitStack, old_sockets: int, new_sockets: int
) -> None:
    old = stack.enter_context(closing(Server(port, old_sockets)))
    steering = stack.enter_context(closing(PortSteering("127.0.0.1", port)))
    new = stack.enter_context(closing(Server(port, new_sockets)))
    connect(port)
    assert (old.accept_all(), new.accept_all()) == (MANY, 0)
    steering.switch()
    connect(port)
    assert (old.accept_all(), new.accept_all()) == (0, MANY)
    old.close()
    connect(port)
    assert new.accept_all() == MANY
    steering.close()
    connect(port)
    assert new.accept_all() == MANY


def test_a_private_connection_reaches_whom_it_means(port: int, stack: ExitStack) -> None:
    old = stack.enter_context(closing(Server(port, 2)))
    steering = stack.enter_context(closing(PortSteering("127.0.0.1", port)))
    new = stack.enter_context(closing(Server(port, 2)))
    for _ in range(5):
        steering.connect(new=True).close()
    assert (old.accept_all(), new.accept_all()) == (0, 5)
    steering.switch()
    for _ in range(5):
        steering.connect(new=False).close()
    assert (old.accept_all(), new.accept_all()) == (5, 0)


def test_without_a_second_server_there_is_nothing_to_switch_to(port: int, stack: ExitStack) -> None:
    old = stack.enter_context(closing(Server(port, 1)))
    steering = stack.enter_context(closing(PortSteering("127.0.0.1", port)))
    with pytest.raises(LycheeServerError, match=f"does not listen on port {port}"):
        steering.switch()
    connect(port)
    assert old.accept_all() == MANY


def test_a_server_that_shares_its_port_with_nobody_is_told(port: int, stack: ExitStack) -> None:
    plain = stack.enter_context(closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)))
    plain.bind(("127.0.0.1", port))
    plain.listen()
    assert count_listeners(port) == {socket.AF_INET: 1}
    with pytest.raises(LycheeServerError, match=f"two servers cannot share port {port}"):
        PortSteering("127.0.0.1", port)


def test_a_port_is_reserved_for_those_who_share_it(port: int, stack: ExitStack) -> None:
    stack.enter_context(closing(reserve("127.0.0.1", port)))
    stack.enter_context(closing(Server(port, 1)))
    with pytest.raises(OSError, match="in use"), closing(socket.socket()) as other:
        other.bind(("127.0.0.1", port))
