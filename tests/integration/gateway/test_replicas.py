"""Three real gateways, with a list of Tritons behind each: stopped, killed and frozen, no call fails."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from lychee_client import LycheeClient
from lychee_server import TritonServer

from .running_gateway import RunningGateway, run_gateway

pytestmark = pytest.mark.triton

CALLERS = 3


def wait_until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Return as soon as the condition holds; fail if it never does."""
    ends_at_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < ends_at_s
        time.sleep(0.02)


@pytest.fixture
def gateways(server: TritonServer, tmp_path: Path) -> Iterator[list[RunningGateway]]:
    """Run three gateways. Their list has two addresses of the same Triton, and one where none is."""
    port = server.grpc_url.rpartition(":")[2]
    triton_url = f"{server.grpc_url},localhost:{port},127.0.0.1:9"
    with ExitStack() as stack:
        running = []
        for number in range(3):
            folder = tmp_path / str(number)
            folder.mkdir()
            running.append(stack.enter_context(run_gateway(folder, triton_url, "--no-web")))
        for gateway in running:
            gateway.wait_for("/health/ready", 200)
        yield running


def test_gateway_stopped_killed_and_frozen_fails_no_call(gateways: list[RunningGateway]) -> None:
    url = f"http://{','.join(gateway.url.partition('://')[2] for gateway in gateways)}"
    errors: list[Exception] = []
    answers = 0
    stopped = False

    def call(client: LycheeClient) -> None:
        nonlocal answers
        while not stopped:
            try:
                client.score("a cat", "a cat and a dog", timeout_s=30.0)
                answers += 1
            except Exception as error:
                errors.append(error)

    def go_on() -> None:
        least = answers + 15
        wait_until(lambda: answers >= least or bool(errors))

    with LycheeClient(url) as client:

        def state_of(gateway: RunningGateway) -> str:
            address = gateway.url.partition("://")[2]
            (state,) = [replica.state for replica in client.replicas if replica.address == address]
            return state

        threads = [threading.Thread(target=call, args=(client,)) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        try:
            go_on()
            first, second, third = gateways
            first.process.send_signal(signal.SIGSTOP)
            try:
                wait_until(lambda: state_of(first) == "silent")
                go_on()
            finally:
                first.process.send_signal(signal.SIGCONT)
            wait_until(lambda: state_of(first) == "live")
            second.process.terminate()
            wait_until(lambda: state_of(second) in ("lost", "not ready"))
            go_on()
            third.process.kill()
            wait_until(lambda: state_of(third) == "lost")
            go_on()
        finally:
            stopped = True
            for thread in threads:
                thread.join(60)
    assert not errors


def test_status_and_metrics_name_the_tritons(gateways: list[RunningGateway]) -> None:
    status, body = gateways[0].get("/v1/status")
    assert status == 200
    assert '"state":"lost"' in body.replace(" ", "")
    metrics = gateways[0].get("/metrics")[1]
    assert 'lychee_gateway_triton_replicas{model="default",state="live"} 2.0' in metrics
    assert 'lychee_gateway_triton_replicas{model="default",state="lost"} 1.0' in metrics
    assert 'lychee_gateway_triton_requests_sent_again_total{model="default",reason="slow"}' in metrics
