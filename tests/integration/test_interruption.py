"""The server goes away in the middle of a request."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from lychee_client import ConnectionFailedError, LycheeClient, LycheeError, ModelNotReadyError
from lychee_server import TritonServer

pytestmark = pytest.mark.triton


def stop(server: TritonServer) -> None:
    server.stop()


def kill(server: TritonServer) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("end", "expected"), [(stop, (ConnectionFailedError, ModelNotReadyError)), (kill, (ConnectionFailedError,))]
)
def test_call_in_flight_fails_clearly_when_the_server_ends(
    repository: Path, tmp_path: Path, end: Callable[[TritonServer], None], expected: tuple[type[LycheeError], ...]
) -> None:
    log_path = tmp_path / "triton.log"
    server = TritonServer(repository, http_port=0, grpc_port=0, metrics_port=0, log_path=log_path)
    with server, LycheeClient(server.grpc_url) as client:
        client.score("a cat", "a dog")
        sending = threading.Event()
        caught: list[BaseException] = []

        def rank_until_it_fails() -> None:
            try:
                for number in range(1000):
                    sending.set()
                    client.rerank(f"query {number}", [f"text {number} {index} " * 40 for index in range(200)])
            except BaseException as error:
                caught.append(error)

        caller = threading.Thread(target=rank_until_it_fails)
        caller.start()
        assert sending.wait(10)
        end(server)
        caller.join(60)
        assert not caller.is_alive()
        assert isinstance(caught[0], expected), caught
        assert server.grpc_url in str(caught[0])
        with pytest.raises(ConnectionFailedError):
            client.score("a cat", "a dog")
