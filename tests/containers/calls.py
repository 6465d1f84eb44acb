"""Callers of the published port who know what a right answer is."""

from __future__ import annotations

import base64
import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_S = 60
CALLERS = 4
PAUSE_S = 0.05
QUERY = "一只猫"
TEXTS = ("店里的小猫喜欢在窗台上晒太阳。", "a rocket")


def ask(url: str, method: str = "GET", content: object = None) -> tuple[int, bytes]:
    """Send one request, with `content` as JSON; return status and body."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)
    try:
        body = None if content is None else json.dumps(content).encode()
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request(method, path, body, {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def data_url(photo: Path) -> str:
    """Return a photo as REST takes it."""
    return f"data:image/jpeg;base64,{base64.b64encode(photo.read_bytes()).decode()}"


def rank(url: str, *documents: object) -> list[dict[str, Any]]:
    """Rank documents for a cat; return the results."""
    status, body = ask(f"{url}/v1/rerank", "POST", {"query": QUERY, "documents": documents})
    assert status == 200, body
    results: list[dict[str, Any]] = json.loads(body)["results"]
    return results


@dataclass
class Seen:
    """What callers got.

    Attributes:
        right: How many answers were right.
        wrong: Answers of status 200 that were not.
        refused: How many calls were refused, by status, or had their connection cut.
    """

    right: int = 0
    wrong: list[bytes] = field(default_factory=list)
    refused: Counter[int | str] = field(default_factory=Counter)


@contextmanager
def callers(url: str, photos: Path) -> Iterator[Seen]:
    """Rank texts and photos again and again until the end of the block; every score has to be what it was before it."""
    documents = [*TEXTS, {"image": data_url(photos / "cat.jpg")}, {"image": data_url(photos / "rocket.jpg")}]
    expected = {result["index"]: result["relevance_score"] for result in rank(url, *documents)}
    seen = Seen()
    ended = threading.Event()

    def call() -> None:
        while not ended.wait(PAUSE_S):
            try:
                status, body = ask(f"{url}/v1/rerank", "POST", {"query": QUERY, "documents": documents})
            except (OSError, http.client.HTTPException) as error:
                seen.refused[type(error).__name__] += 1
                continue
            if status != 200:
                seen.refused[status] += 1
                continue
            results = json.loads(body)["results"]
            got = {result["index"]: result["relevance_score"] for result in results}
            if got.keys() == expected.keys() and all(abs(got[key] - expected[key]) < 1e-3 for key in got):
                seen.right += 1
            else:
                seen.wrong.append(body)

    threads = [threading.Thread(target=call) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 300) -> None:
    """Return once the condition is true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:g} s"
        time.sleep(0.5)
