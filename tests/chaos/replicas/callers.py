"""Callers that know every right score of both models: each call's answer is one model's, or wrong.

They run in a process of their own, on the clients' machine, and write a line of JSON for every call.
Usage: python -m chaos.replicas.callers record URL
       python -m chaos.replicas.callers call EXPECTED PAUSE_S KIND=URL...
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from lychee_client import AsyncLycheeClient, Image, LycheeClient, RerankResponse

PHOTO_PATH: Final = Path(__file__).parents[3] / "examples" / "catalogue" / "photos" / "cat.jpg"
QUERIES: Final = ("a cat", "一杯咖啡", "red running shoes", "a train in the snow", "how to bake bread", "小狗")
TEXTS: Final = (
    "a small cat asleep on a chair",
    "一只小猫",
    "a cup of coffee with milk",
    "shoes for runners, red, size 42",
    "the night train to the north",
    "bread needs flour, water, salt and time",
    "a dog waits for its owner",
    "一份关于季度销售的报告",
)
PHOTO: Final = len(TEXTS)  # the index of the document that is a photo
DOCUMENTS_PER_CALL: Final = 3
TOLERANCE: Final = 0.02  # of a logit; those of the two models are 1.5 apart
TIMEOUT_S: Final = 30.0

Scores = dict[int, float]
Expected = dict[str, list[list[float]]]  # model, query, document
Rank = Callable[[int, list[int]], Scores]


class FailedCallError(Exception):
    """A call got no answer with a score for each document."""


def documents() -> list[Any]:
    """Return what is ranked: texts and a photo."""
    return [*TEXTS, Image.from_path(PHOTO_PATH)]


def judge(expected: Expected, query: int, scores: Scores) -> str:
    """Return the model whose scores these are, or "mixed"."""
    for model, known in expected.items():
        if all(abs(_logit(score) - _logit(known[query][index])) < TOLERANCE for index, score in scores.items()):
            return model
    return "mixed"


def _logit(score: float) -> float:
    bounded = min(max(score, 1e-7), 1 - 1e-7)
    return math.log(bounded / (1 - bounded))


def pick(rng: random.Random) -> tuple[int, list[int]]:
    """Choose a query and documents; every fourth call has the photo."""
    chosen = rng.sample(range(PHOTO), DOCUMENTS_PER_CALL)
    if rng.random() < 0.25:
        chosen[-1] = PHOTO
    return rng.randrange(len(QUERIES)), chosen


def _read(response: RerankResponse, chosen: list[int]) -> Scores:
    if response.errors or len(response.results) != len(chosen):
        raise FailedCallError(f"{len(response.results)} results and {response.errors}")
    return {chosen[result.index]: result.relevance_score for result in response.results}


def with_sdk(url: str, **options: Any) -> Rank:
    """Rank with the client of threads."""
    client, known = LycheeClient(url, timeout_s=TIMEOUT_S, **options), documents()
    return lambda query, chosen: _read(client.rerank(QUERIES[query], [known[index] for index in chosen]), chosen)


def with_async_sdk(url: str) -> Rank:
    """Rank with the client of asyncio, which keeps embeddings as it does by itself."""
    client, known = AsyncLycheeClient(url, timeout_s=TIMEOUT_S), documents()
    loop = asyncio.new_event_loop()

    def rank(query: int, chosen: list[int]) -> Scores:
        return _read(loop.run_until_complete(client.rerank(QUERIES[query], [known[index] for index in chosen])), chosen)

    return rank


def with_rest(url: str) -> Rank:
    """Rank by a gateway, over a new connection for each call; texts only."""
    address = urlsplit(url)

    def rank(query: int, chosen: list[int]) -> Scores:
        texts = [index for index in chosen if index != PHOTO]
        connection = HTTPConnection(address.hostname or "", address.port, timeout=TIMEOUT_S)
        try:
            body = {"query": QUERIES[query], "documents": [TEXTS[index] for index in texts]}
            connection.request("POST", "/v1/rerank", json.dumps(body), {"content-type": "application/json"})
            response = connection.getresponse()
            status, content = response.status, response.read()
        finally:
            connection.close()
        if status != 200:
            raise FailedCallError(f"status {status}: {content[:300]!r}")
        results = json.loads(content)["results"]
        if len(results) != len(texts):
            raise FailedCallError(f"{len(results)} results of {len(texts)}")
        return {texts[result["index"]]: result["relevance_score"] for result in results}

    return rank


KINDS: Final[dict[str, Callable[[str], Rank]]] = {
    "sdk": lambda url: with_sdk(url, embedding_cache=None),
    "async": with_async_sdk,
    "rest": with_rest,
}


def call_on(kind: str, url: str, expected: Expected, pause_s: float, seed: int) -> Iterator[dict[str, Any]]:
    """Call for ever, and yield what came of each call."""
    rank, rng = KINDS[kind](url), random.Random(seed)
    while True:
        query, chosen = pick(rng)
        began_s = time.monotonic()
        try:
            outcome = judge(expected, query, scores := rank(query, chosen))
            note = str(scores) if outcome == "mixed" else ""
        except Exception as error:  # whatever it is, the caller has no answer
            outcome, note = "failed", f"{type(error).__name__}: {error}"
        seconds = time.monotonic() - began_s
        yield {"began_s": began_s, "seconds": seconds, "caller": f"{kind}={url}", "outcome": outcome, "note": note}
        time.sleep(rng.uniform(0.5, 1.5) * pause_s)


def _write(kind: str, url: str, expected: Expected, pause_s: float, seed: int) -> None:
    for line in call_on(kind, url, expected, pause_s, seed):
        sys.stdout.write(json.dumps(line) + "\n")  # at once, so that lines of callers do not mix
        sys.stdout.flush()


def main() -> None:
    """Record, or call until somebody ends the process."""
    if sys.argv[1] == "record":
        rank = with_sdk(sys.argv[2], embedding_cache=None)
        every = [*range(PHOTO + 1)]
        scores = [rank(query, every) for query in range(len(QUERIES))]
        print(json.dumps([[found[index] for index in every] for found in scores]))
        return
    expected = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    threads = []
    for seed, caller in enumerate(sys.argv[4:]):
        kind, _, url = caller.partition("=")
        threads.append(threading.Thread(target=_write, args=(kind, url, expected, float(sys.argv[3]), seed)))
        threads[-1].start()
    for thread in threads:  # the clients would be closed if this one ended
        thread.join()


if __name__ == "__main__":
    main()
