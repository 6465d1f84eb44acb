"""Callers that give up after milliseconds, in every way there is: no process ends, and patient callers see nothing.

The texts are the same in every call: an answer that Triton has at once is the one whose cancellation ended Triton 2.51
within 30 calls.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from integration.gateway.running_gateway import RunningGateway, run_gateway
from lychee_client import AsyncLycheeClient, DeadlineExceededError, LycheeClient
from lychee_server import TritonServer

pytestmark = pytest.mark.triton

FEW = 120
MANY = 20_000
PATIENT_EVERY = 10
PATIENCE_S = 60.0
SAME_SCORE = 1e-5
QUERY = "a red cup"
DOCUMENTS = ["a cup of tea", "a cat on a sofa", "red wine in a glass"]
HEADERS = {"Content-Type": "application/json"}


@dataclass
class Stack:
    """A Triton and a gateway before it, and the right scores."""

    triton: TritonServer
    gateway: RunningGateway
    scores: list[float]

    def check(self, scores: list[float]) -> None:
        """Compare scores in the order of DOCUMENTS with the right ones."""
        assert scores == pytest.approx(self.scores, abs=SAME_SCORE)


@pytest.fixture(scope="module")
def stack(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run both for all tests of this module: in float32, so that scores do not depend on neighbours."""
    folder = tmp_path_factory.mktemp("impatient")
    ports = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
    with (
        TritonServer(repository, config_name="cpu", **ports, log_path=folder / "triton.log") as triton,
        run_gateway(folder, triton.grpc_url, "--no-web", LYCHEE_GATEWAY_LOG_LEVEL="ERROR") as gateway,
        LycheeClient(triton.grpc_url, timeout_s=PATIENCE_S) as client,
    ):
        gateway.wait_for("/health/ready", 200)
        yield Stack(triton, gateway, in_order(client))


def in_order(client: LycheeClient) -> list[float]:
    results = client.rerank(QUERY, DOCUMENTS).results
    return [result.relevance_score for result in sorted(results, key=lambda result: result.index)]


def body(**options: object) -> str:
    return json.dumps({"query": QUERY, "documents": DOCUMENTS, **options})


def ask_gateway(stack: Stack, connection: http.client.HTTPConnection, **options: object) -> int:
    """Rank over REST; scores that come are checked. Return the status."""
    connection.request("POST", "/v1/rerank", body(**options), HEADERS)
    response = connection.getresponse()
    content = response.read()
    if response.status == 200:
        results = sorted(json.loads(content)["results"], key=lambda result: result["index"])
        stack.check([result["relevance_score"] for result in results])
    return response.status


def rest_with_tiny_deadlines(stack: Stack, calls: int, seed: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", stack.gateway.port, timeout=PATIENCE_S)
    for number in range(calls):
        if number % PATIENT_EVERY == 0:
            assert ask_gateway(stack, connection) == 200
        else:
            assert ask_gateway(stack, connection, timeout_ms=1) in (200, 504)
    connection.close()


def rest_with_hang_ups(stack: Stack, calls: int, seed: int) -> None:
    rng = random.Random(seed)
    connection = http.client.HTTPConnection("127.0.0.1", stack.gateway.port, timeout=PATIENCE_S)
    content = body().encode()
    lines = ["POST /v1/rerank HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in HEADERS.items())]
    head = "\r\n".join([*lines, f"Content-Length: {len(content)}", "", ""])
    for number in range(calls):
        if number % PATIENT_EVERY == 0:
            assert ask_gateway(stack, connection) == 200
            continue
        with socket.create_connection(("127.0.0.1", stack.gateway.port), timeout=PATIENCE_S) as hasty:
            hasty.sendall(head.encode() + content)
            time.sleep(rng.uniform(0.005, 0.02))
    connection.close()


def sdk_with_tiny_deadlines(stack: Stack, calls: int, seed: int) -> None:
    rng = random.Random(seed)
    urls = (stack.triton.grpc_url, f"http://{stack.triton.http_url}")
    for url in urls:
        with LycheeClient(url, timeout_s=PATIENCE_S) as client:
            for number in range(calls // len(urls)):
                if number % PATIENT_EVERY == 0:
                    stack.check(in_order(client))
                    continue
                try:
                    client.rerank(QUERY, DOCUMENTS, timeout_s=rng.choice([0.001, 0.003, 0.01]))
                except DeadlineExceededError:
                    continue


def sdk_with_cancellations(stack: Stack, calls: int, seed: int) -> None:
    rng = random.Random(seed)

    async def call(url: str, count: int) -> None:
        async with AsyncLycheeClient(url, timeout_s=PATIENCE_S) as client:
            for number in range(count):
                task = asyncio.create_task(client.rerank(QUERY, DOCUMENTS))
                if number % PATIENT_EVERY == 0:
                    results = sorted((await task).results, key=lambda result: result.index)
                    stack.check([result.relevance_score for result in results])
                    continue
                await asyncio.sleep(rng.choice([0.0, 0.002, 0.01, 0.03]))
                task.cancel()
                await asyncio.wait([task])

    for url in (stack.triton.grpc_url, f"http://{stack.triton.http_url}"):
        asyncio.run(call(url, calls // 2))


WAYS: list[Callable[[Stack, int, int], None]] = [
    rest_with_tiny_deadlines,
    rest_with_hang_ups,
    sdk_with_tiny_deadlines,
    sdk_with_cancellations,
]


def check_alive(stack: Stack) -> None:
    assert stack.triton.poll() is None
    assert stack.gateway.process.poll() is None
    assert stack.gateway.get("/health/ready")[0] == 200
    connection = http.client.HTTPConnection("127.0.0.1", stack.gateway.port, timeout=PATIENCE_S)
    assert ask_gateway(stack, connection) == 200
    connection.close()


@pytest.mark.parametrize("way", WAYS)
def test_no_process_ends_and_every_patient_call_is_right(stack: Stack, way: Callable[[Stack, int, int], None]) -> None:
    way(stack, FEW, 14)
    check_alive(stack)


@pytest.mark.chaos
def test_twenty_thousand_calls_in_every_way_at_once(stack: Stack) -> None:
    with ThreadPoolExecutor(len(WAYS)) as pool:
        for done in [pool.submit(way, stack, MANY // len(WAYS), 14) for way in WAYS]:
            done.result()
    check_alive(stack)
