"""Three real Tritons, each on its own address of the loopback: killed, frozen and started again, no call fails."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lychee_client import AsyncLycheeClient, LycheeClient, TlsConfig
from lychee_server import TritonServer
from lychee_server.processes import pick_free_ports

from ..faults import FaultProxy
from .conftest import Certificates, Connect, ControlledServer, Protocol, wait_until

pytestmark = pytest.mark.triton

NAME = "replicas.lychee.test"
PAIR = "a cat", "a cat and a dog"
CALLERS = 3
CALL_TIMEOUT_S = 30.0
ATTEMPTS = 10


class Tritons:
    """Three Tritons on the same ports of 127.0.0.1, 127.0.0.2 and 127.0.0.3."""

    def __init__(self, repository: Path, folder: Path) -> None:
        self.ports = pick_free_ports("127.0.0.1", 3)
        self._repository = repository
        self._folder = folder
        self.servers: dict[str, TritonServer] = {}

    @property
    def ips(self) -> list[str]:
        return [f"127.0.0.{number}" for number in (1, 2, 3)]

    def start(self, ip: str) -> None:
        http_port, grpc_port, metrics_port = self.ports
        self.servers[ip] = TritonServer(
            self._repository,
            host=ip,
            http_port=http_port,
            grpc_port=grpc_port,
            metrics_port=metrics_port,
            config_name="cpu",
            log_path=self._folder / f"{ip}.log",
        )
        self.servers[ip].start()

    def kill(self, ip: str) -> None:
        self.signal(ip, signal.SIGKILL)
        self.servers[ip].stop()  # what it leaves behind

    def signal(self, ip: str, number: signal.Signals) -> None:
        process_id = self.servers[ip].pid
        assert process_id is not None
        os.kill(process_id, number)

    def url(self, protocol: Protocol, *, by_name: bool) -> str:
        port = self.ports[1] if protocol == "grpc" else self.ports[0]
        hosts = [NAME] if by_name else self.ips
        return f"{protocol}://{','.join(f'{host}:{port}' for host in hosts)}"


@pytest.fixture(scope="module")
def tritons(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tritons]:
    """Run three."""
    tritons = Tritons(repository, tmp_path_factory.mktemp("tritons"))
    try:
        for ip in tritons.ips:
            tritons.start(ip)
        for server in tritons.servers.values():
            server.wait_until_ready()
        yield tritons
    finally:
        for server in tritons.servers.values():
            server.stop()


@pytest.fixture
def names(tritons: Tritons, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the addresses of NAME, for the test to change."""
    addresses = tritons.ips
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        if host != NAME:
            return real(host, port, *arguments, **options)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return addresses


class Traffic:
    """What callers saw."""

    def __init__(self) -> None:
        self.answers = 0
        self.errors: list[Exception] = []
        self.stopped = False

    def go_on(self, count: int = 15) -> None:
        """Return after so many more answers."""
        least = self.answers + count
        wait_until(lambda: self.answers >= least or bool(self.errors), 60.0)


@contextmanager
def traffic(client: LycheeClient | AsyncLycheeClient) -> Iterator[Traffic]:
    """Have several callers score a pair again and again, until the body ends."""
    seen = Traffic()

    def call(score: Callable[..., float]) -> None:
        while not seen.stopped:
            try:
                score(*PAIR, timeout_s=CALL_TIMEOUT_S)
                seen.answers += 1
            except Exception as error:
                seen.errors.append(error)

    async def call_async() -> None:
        while not seen.stopped:
            try:
                await client.score(*PAIR, timeout_s=CALL_TIMEOUT_S)  # type: ignore[misc]
                seen.answers += 1
            except Exception as error:
                seen.errors.append(error)

    async def call_all() -> None:
        await asyncio.gather(*(call_async() for _ in range(CALLERS)))
        await client.aclose()  # type: ignore[union-attr]

    if isinstance(client, LycheeClient):
        threads = [threading.Thread(target=call, args=(client.score,)) for _ in range(CALLERS)]
    else:
        threads = [threading.Thread(target=lambda: asyncio.run(call_all()))]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        seen.stopped = True
        for thread in threads:
            thread.join(60)
        if isinstance(client, LycheeClient):
            client.close()


def state_of(client: LycheeClient | AsyncLycheeClient, ip: str) -> str:
    """Return what the client thinks of a replica."""
    (state,) = [replica.state for replica in client.replicas if replica.address.startswith(f"{ip}:")]
    return state


@pytest.mark.parametrize(
    ("protocol", "kind", "by_name"),
    [
        ("grpc", LycheeClient, True),
        ("grpc", AsyncLycheeClient, False),
        ("http", LycheeClient, False),
        ("http", AsyncLycheeClient, True),
    ],
    ids=["grpc sync name", "grpc async list", "http sync list", "http async name"],
)
@pytest.mark.usefixtures("names")
def test_kill_freeze_and_start_again_fail_no_call(
    tritons: Tritons, protocol: Protocol, kind: type[LycheeClient | AsyncLycheeClient], by_name: bool
) -> None:
    frozen, killed = tritons.ips[1:]
    client = kind(tritons.url(protocol, by_name=by_name), embedding_cache=None)
    with traffic(client) as seen:
        wait_until(lambda: all(replica.requests for replica in client.replicas) and seen.answers > 10, 60.0)
        assert len(client.replicas) == 3
        tritons.signal(frozen, signal.SIGSTOP)
        try:
            wait_until(lambda: state_of(client, frozen) == "silent", 30.0)
            seen.go_on()
        finally:
            tritons.signal(frozen, signal.SIGCONT)
        wait_until(lambda: state_of(client, frozen) == "live", 30.0)
        tritons.kill(killed)
        wait_until(lambda: state_of(client, killed) == "lost", 30.0)
        seen.go_on()
        tritons.start(killed)
        tritons.servers[killed].wait_until_ready()
        wait_until(lambda: state_of(client, killed) == "live", 30.0)
        seen.go_on()
    assert not seen.errors


def test_new_address_of_a_name_is_used_and_a_gone_one_is_not(
    tritons: Tritons, protocol: Protocol, names: list[str]
) -> None:
    first, second, third = names
    names[:] = [first, second]
    client = LycheeClient(tritons.url(protocol, by_name=True), embedding_cache=None)
    with traffic(client) as seen:
        seen.go_on()
        assert len(client.replicas) == 2
        names[:] = [second, third]
        began_s = time.monotonic()
        wait_until(lambda: any(r.address.startswith(third) and r.requests for r in client.replicas), 30.0)
        assert time.monotonic() - began_s < 15  # it is looked up every 5 s
        wait_until(lambda: not any(r.address.startswith(first) for r in client.replicas), 30.0)
        seen.go_on()
    assert not seen.errors


def test_status_names_the_replicas(tritons: Tritons, protocol: Protocol, connect: Connect) -> None:
    caller = connect(tritons.url(protocol, by_name=False))
    for _ in range(5):
        caller.score(*PAIR)
    status = caller._wait(caller._client.server_status())
    assert status.ready
    assert [replica.address.rpartition(":")[0] for replica in status.replicas] == tritons.ips
    assert {replica.state for replica in status.replicas} == {"live"}


def test_server_timings_are_those_of_all_replicas(tritons: Tritons, protocol: Protocol, connect: Connect) -> None:
    caller = connect(tritons.url(protocol, by_name=False), embedding_cache=None)
    caller.score(*PAIR)
    for _ in range(ATTEMPTS):  # a replica that takes too long to tell what it counted is left out
        timings = caller.rerank(PAIR[0], [PAIR[1]], server_timings=True).timings.server
        assert timings is not None
        if "scoring_head_text" in timings:
            break
    assert 1 <= timings["scoring_head_text"].requests <= 2  # a copy may measure a replica that was slow


def test_name_of_the_host_is_verified_whichever_address_it_is(
    controlled: ControlledServer,
    protocol: Protocol,
    connect: Connect,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        return real("127.0.0.1" if str(host).endswith(".lychee.test") else host, port, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    tls = TlsConfig(ca_path=certificates.ca_path)
    with FaultProxy(controlled.address(protocol), certificates.server_context(NAME)) as proxy:
        port = proxy.address.rpartition(":")[2]
        assert connect(f"{protocol}s://{NAME}:{port}", tls=tls).score(*PAIR) == 0.5
        with pytest.raises(Exception, match=r"(?i)certificate|hostname|ssl|handshake"):
            connect(f"{protocol}s://other.lychee.test:{port}", tls=tls, max_retries=0).score(*PAIR)
