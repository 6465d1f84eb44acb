"""Load a gateway with many callers at the same time; print a table, write JSON, fail if anything but 200 and 429 came.

Starts Triton and a gateway of its own on free ports. The callers are a closed loop: each sends its next request when it
has an answer, and after a 429 when `Retry-After` is over. A number says nothing without its machine, so both are
written together.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from lychee_server.examples import read_catalogue

from lychee_loadtest.folders import REPOSITORY, RESULTS, write_record
from lychee_loadtest.machine import describe_machine
from lychee_loadtest.memory.process_memory import read_process
from lychee_loadtest.payloads import to_data_url
from lychee_loadtest.quantile import quantile
from lychee_loadtest.speed.measurement import Measurement

STATE_VARIABLE = "LYCHEE_STATE_DIR"
TEXT_SHARE = 0.7  # of the requests; the others have photos too
TEXTS, PHOTOS = 5, 2
WARM_UP_S = 15.0
GROWTH_LIMIT_MB = 16.0
OK, BUSY = 200, 429


@dataclass
class LoadOutcome:
    """What the callers saw. Latencies are those of answers with status 200."""

    statuses: Counter[int] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)
    problems: Counter[str] = field(default_factory=Counter)


class Payloads:
    """Requests with documents of the catalogue: the same ones again and again, as in a shop, each with a new query."""

    def __init__(self, *, fresh: bool) -> None:
        catalogue = read_catalogue()
        self._queries = list(catalogue.queries)
        self._texts = [text for document in catalogue.documents if not document.photo and (text := document.text)]
        self._photos = [to_data_url(photo.read_bytes()) for photo in catalogue.queries.values()]
        self._fresh = fresh
        self._rng = random.Random(0)

    def make(self, number: int) -> dict[str, Any]:
        """Return the body of a request."""
        documents: list[Any] = self._rng.choices(self._texts, k=TEXTS)
        if self._fresh:
            documents = [f"{text} {number}-{place}" for place, text in enumerate(documents)]
        if self._rng.random() >= TEXT_SHARE:
            documents[:PHOTOS] = [{"image": photo} for photo in self._rng.choices(self._photos, k=PHOTOS)]
        return {"query": f"{self._rng.choice(self._queries)} {number}", "documents": documents}


@dataclass(frozen=True)
class Gateway:
    """A running one."""

    url: str
    pid: int
    triton_url: str
    """Host and port of the Triton behind it, for gRPC."""

    def memory_mb(self) -> float:
        """Return its resident memory."""
        return read_process(self.pid).rss_bytes / 1e6


@contextmanager
def run_gateway() -> Iterator[Gateway]:
    """Start Triton and a gateway with `lychee load`, with a state folder of their own; stop them afterwards."""
    lychee = str(Path(sys.executable).parent / "lychee")
    ports = [f"--{name}=0" for name in ("http-port", "grpc-port", "metrics-port", "port")]
    with tempfile.TemporaryDirectory() as state_dir:
        environment = os.environ | {STATE_VARIABLE: state_dir}
        load = [lychee, "load", "--repository", str(REPOSITORY), "--log-level", "ERROR", *ports]
        subprocess.run(load, env=environment, check=True, stdout=subprocess.DEVNULL)
        try:
            known = subprocess.run([lychee, "status", "--json"], env=environment, check=True, stdout=subprocess.PIPE)
            status = json.loads(known.stdout)
            yield Gateway(status["gateway"]["url"], status["gateway"]["pid"], status["grpc_url"])
        finally:
            subprocess.run([lychee, "stop"], env=environment, check=True, stdout=subprocess.DEVNULL)


async def call_until(
    ends_at_s: float, session: aiohttp.ClientSession, payloads: Payloads, numbers: Iterator[int], outcome: LoadOutcome
) -> None:
    """Be one caller until the time is up."""
    while time.monotonic() < ends_at_s:
        body = payloads.make(next(numbers))
        began_at_s = time.monotonic()
        try:
            async with session.post("/v1/rerank", json=body) as response:
                answer = await response.json()
        except (aiohttp.ClientError, TimeoutError) as error:
            outcome.problems[type(error).__name__] += 1
            continue
        outcome.statuses[response.status] += 1
        if response.status == OK:
            outcome.latencies_ms.append(1e3 * (time.monotonic() - began_at_s))
            if len(answer["results"]) != len(body["documents"]):
                outcome.problems["documents failed"] += 1
        elif response.status == BUSY:
            wait_s = int(response.headers["Retry-After"])
            await asyncio.sleep(max(0.0, min(wait_s, ends_at_s - time.monotonic())))
        else:
            outcome.problems[str(answer.get("type"))] += 1


async def load(
    gateway: Gateway, clients: int, seconds: float, payloads: Payloads, numbers: Iterator[int]
) -> LoadOutcome:
    """Run so many callers for so long."""
    outcome = LoadOutcome()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(gateway.url, connector=connector, timeout=aiohttp.ClientTimeout(120)) as session:
        ends_at_s = time.monotonic() + seconds
        await asyncio.gather(*(call_until(ends_at_s, session, payloads, numbers, outcome) for _ in range(clients)))
    return outcome


def measure(gateway: Gateway, clients: int, seconds: float, *, fresh: bool) -> Iterator[Measurement]:
    """Warm up, then measure."""
    payloads, numbers = Payloads(fresh=fresh), iter(range(10**9))
    at_start = gateway.memory_mb()
    asyncio.run(load(gateway, clients, min(WARM_UP_S, seconds), payloads, numbers))
    warm = gateway.memory_mb()
    outcome = asyncio.run(load(gateway, clients, seconds, payloads, numbers))
    at_end = gateway.memory_mb()
    answers = sum(outcome.statuses.values())
    others = answers - outcome.statuses[OK] - outcome.statuses[BUSY]
    name = f"{clients} clients, {seconds:g} s"
    yield Measurement(f"{name}: answers with scores", outcome.statuses[OK] / seconds, "1/s")
    yield Measurement(f"{name}: p50", quantile(outcome.latencies_ms, 0.5), "ms")
    yield Measurement(f"{name}: p99", quantile(outcome.latencies_ms, 0.99), "ms")
    yield Measurement(f"{name}: share of 429", 100 * outcome.statuses[BUSY] / max(1, answers), "%")
    yield Measurement(f"{name}: other errors", others + sum(outcome.problems.values()), "", 0)
    yield Measurement("memory of the gateway at the start", at_start, "MB")
    yield Measurement("the same after the warm-up", warm, "MB")
    yield Measurement("growth from there to the end", at_end - warm, "MB", GROWTH_LIMIT_MB)
    for problem, count in outcome.problems.most_common():
        print(f"  {count} x {problem}")


def main() -> int:
    """Print the table, write the JSON file, and return 1 if a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=200, help="callers at the same time")
    parser.add_argument("--seconds", type=float, default=60.0, help="after the warm-up")
    parser.add_argument("--fresh", action="store_true", help="new texts in every request, which no cache knows")
    parser.add_argument("--output", type=Path, default=RESULTS / "gateway_bench.json")
    arguments = parser.parse_args()
    machine = describe_machine()
    print(f"{machine['cpu']}, {machine['cores']} cores, {machine['date']}; callers, gateway and Triton share them")
    with run_gateway() as gateway:
        lines = list(measure(gateway, arguments.clients, arguments.seconds, fresh=arguments.fresh))
    for line in lines:
        print(line)
    content = {"machine": machine, "measurements": [asdict(line) | {"met": line.met} for line in lines]}
    write_record(arguments.output, content)
    return 0 if all(line.met for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
