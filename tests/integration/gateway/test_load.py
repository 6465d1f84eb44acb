"""Many callers at the same time: everyone gets scores or a 429 that says when to come again."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from lychee_server import TritonServer

from .running_gateway import RunningGateway, run_gateway

pytestmark = [pytest.mark.triton, pytest.mark.slow]

CALLERS, SECONDS = 50, 4.0
RUNNING, WAITING = 3, 6


@dataclass
class Seen:
    """What the callers got."""

    statuses: Counter[int] = field(default_factory=Counter)
    peak: float = 0.0
    problems: list[str] = field(default_factory=list)


async def call(client: httpx.AsyncClient, number: int, seen: Seen, over: asyncio.Event) -> None:
    """Call again and again, as impatiently as possible."""
    count = 0
    while not over.is_set():
        count += 1
        documents = [f"a small cat {number} {count} {place}" for place in range(3)]
        response = await client.post("/v1/rerank", json={"query": f"cat {number} {count}", "documents": documents})
        seen.statuses[response.status_code] += 1
        if response.status_code == 200:
            if sorted(result["index"] for result in response.json()["results"]) != [0, 1, 2]:
                seen.problems.append(response.text)
        elif response.status_code != 429 or not 1 <= int(response.headers["retry-after"]) <= 60:
            seen.problems.append(f"{response.status_code} {response.headers} {response.text}")
        else:
            await asyncio.sleep(0.05)


async def watch(client: httpx.AsyncClient, seen: Seen, over: asyncio.Event) -> None:
    """Read how many calls run."""
    while not over.is_set():
        seen.peak = max(seen.peak, sample(await read(client), "lychee_gateway_calls_running"))


async def read(client: httpx.AsyncClient) -> str:
    return (await client.get("/metrics")).text


def sample(metrics: str, name: str) -> float:
    """Return the sum of all samples of this name."""
    values = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", metrics, re.MULTILINE)
    return sum(float(value) for value in values)


async def burst(gateway: RunningGateway) -> tuple[Seen, str]:
    seen, over = Seen(), asyncio.Event()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=gateway.url, timeout=60, limits=limits) as client:
        tasks = [asyncio.create_task(call(client, number, seen, over)) for number in range(CALLERS)]
        tasks.append(asyncio.create_task(watch(client, seen, over)))
        asyncio.get_running_loop().call_later(SECONDS, over.set)
        await asyncio.gather(*tasks)
        return seen, await read(client)


def test_a_burst_meets_scores_and_429_and_nothing_else(server: TritonServer, tmp_path: Path) -> None:
    options = ("--no-web", "--max-concurrency", str(RUNNING), "--max-waiting", str(WAITING), "--log-level", "ERROR")
    with run_gateway(tmp_path, server.grpc_url, *options) as gateway:
        gateway.wait_for("/health/ready", 200)
        seen, metrics = asyncio.run(burst(gateway))
    assert seen.problems == []
    assert set(seen.statuses) == {200, 429}
    assert 1 <= seen.peak <= RUNNING
    rerank = (
        'lychee_gateway_requests_total{method="POST",modality="text",model="default",route="/v1/rerank",status="200"}'
    )
    assert sample(metrics, re.escape(rerank)) == seen.statuses[200]
    assert sample(metrics, r'lychee_gateway_rejected_total{model="default",reason="busy"}') == seen.statuses[429]
    assert sample(metrics, "lychee_gateway_documents_sum") == 3 * seen.statuses[200]
    assert sample(metrics, "lychee_gateway_calls_running") == 0
    assert sample(metrics, "lychee_gateway_calls_waiting") == 0
