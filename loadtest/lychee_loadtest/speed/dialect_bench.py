"""What a dialect costs: the same call of 100 texts in a vendor's shape and in the gateway's own, in turn.

Starts Triton and a gateway of its own on free ports. Every round sends both calls, now the one and now the other first,
with texts that no cache knows. With `--cached` the cache has the texts: only the gateway's own work is left then, and a
dialect's share of it is the largest. A ratio is that of dialect to own within a round, the median of all.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from lychee_loadtest.folders import RESULTS, write_record
from lychee_loadtest.machine import describe_machine
from lychee_loadtest.payloads import fresh_queries, fresh_texts
from lychee_loadtest.speed.gateway_bench import run_gateway
from lychee_loadtest.speed.measurement import Measurement

TEXTS: Final = 100
WARM_UP_ROUNDS: Final = 5
MOST: Final = 1.02
OWN: Final = "/v1/rerank"

Make = Callable[[str, Sequence[str]], dict[str, Any]]

DIALECTS: Final[dict[str, tuple[str, Make]]] = {
    "tei": ("/rerank", lambda query, texts: {"query": query, "texts": texts, "truncate": True}),
    "nim": ("/v1/ranking", lambda query, texts: {"query": {"text": query}, "passages": [{"text": t} for t in texts]}),
    "voyage": ("/v1/rerank", lambda query, texts: {"query": query, "documents": texts, "top_k": None}),
    "infinity": ("/infinity/rerank", lambda query, texts: {"query": query, "documents": texts}),
    "mixedbread": ("/v1/reranking", lambda query, texts: {"query": query, "input": texts, "top_k": len(texts)}),
    "vllm score": ("/score", lambda query, texts: {"text_1": query, "text_2": texts}),
}


class Caller:
    """Sends JSON on one connection."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)

    def time_ms(self, path: str, body: dict[str, Any]) -> float:
        """Return how long a call takes, from the first byte sent to the last one read."""
        content = json.dumps(body).encode()
        started = time.perf_counter()
        self._connection.request("POST", path, content, {"content-type": "application/json"})
        answer = self._connection.getresponse()
        text = answer.read()
        took_ms = 1e3 * (time.perf_counter() - started)
        if answer.status != 200:
            raise RuntimeError(f"POST {path} answered {answer.status}: {text.decode()[:300]}")
        return took_ms


class Calls:
    """Queries with their texts: new ones for every call, or always the same."""

    def __init__(self, *, cached: bool) -> None:
        self._queries, self._texts = fresh_queries(), fresh_texts()
        self._kept = self._make() if cached else None

    def make(self) -> tuple[str, list[str]]:
        """Return a query and its texts."""
        return self._kept or self._make()

    def _make(self) -> tuple[str, list[str]]:
        return next(self._queries), list(itertools.islice(self._texts, TEXTS))


def measure(caller: Caller, calls: Calls, name: str, rounds: int) -> Iterator[Measurement]:
    """Compare one dialect with the gateway's own shape."""
    path, make = DIALECTS[name]

    def own() -> float:
        query, texts = calls.make()
        return caller.time_ms(OWN, {"query": query, "documents": texts})

    def spoken() -> float:
        return caller.time_ms(path, make(*calls.make()))

    pairs: list[tuple[float, float]] = []
    for number in range(WARM_UP_ROUNDS + rounds):
        first, second = (own, spoken) if number % 2 else (spoken, own)
        took = (first(), second())
        if number >= WARM_UP_ROUNDS:
            pairs.append(took if number % 2 else (took[1], took[0]))
    yield Measurement(f"{name}: own shape", statistics.median(own_ms for own_ms, _ in pairs), "ms")
    yield Measurement(f"{name}: dialect", statistics.median(spoken_ms for _, spoken_ms in pairs), "ms")
    yield Measurement(f"{name}: ratio", statistics.median(spoken / own for own, spoken in pairs), "", MOST)


def main() -> int:
    """Print the table, write the JSON file, and return 1 if a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60, help="pairs of calls for each dialect")
    parser.add_argument("--cached", action="store_true", help="the same texts in every call")
    parser.add_argument("--output", type=Path, default=RESULTS / "dialect_bench.json")
    arguments = parser.parse_args()
    machine = describe_machine()
    print(f"{machine['cpu']}, {machine['cores']} cores, {machine['date']}; {TEXTS} texts a call; medians")
    lines: list[Measurement] = []
    with run_gateway() as gateway:
        caller, calls = Caller(gateway.url), Calls(cached=arguments.cached)
        for name in DIALECTS:
            for line in measure(caller, calls, name, arguments.rounds):
                print(line, flush=True)
                lines.append(line)
    content = {"machine": machine, "measurements": [asdict(line) | {"met": line.met} for line in lines]}
    write_record(arguments.output, content)
    return 0 if all(line.met for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
