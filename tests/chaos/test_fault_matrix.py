"""Every process of a running server is killed and stopped under load over every transport; see docs/reliability.md."""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from lychee_client import Image, LycheeClient, LycheeError

from chaos.running_server import RunningServer, wait_for

pytestmark = [pytest.mark.triton, pytest.mark.slow, pytest.mark.chaos]
TIMEOUT_S = 30.0  # of one call
NOTICED_WITHIN_S = 5.0
LOOK_EVERY_S = 0.1
CALM_S = 2.0  # of right answers before and after a fault
TRANSPORTS = ("rest", "grpc", "http")

Call = Callable[[], bool]


@dataclass
class Seen:
    """What came of one cell: outcomes by transport, and when the readiness changed."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    ready: list[tuple[float, bool]] = field(default_factory=list)


def make_documents(root: Path) -> tuple[str, list[str | Image]]:
    """Return a query and documents that no cache has seen, best first by a wide margin.

    What makes them new looks unlike in both: lychee-mini finds a text with the query's digits better than the photo.
    """
    photo = Image.from_bytes((root / "examples/catalogue/photos/cat.jpg").read_bytes())
    new = "".join(secrets.choice("ghijklm") for _ in range(6))
    return f"一只猫 {secrets.randbelow(10**4)}", [photo, f"a cup of coffee {new}"]


@pytest.fixture
def calls(supervised: RunningServer, root: Path) -> Iterator[dict[str, Call]]:
    """Yield a call for each transport: it returns whether there is an answer, and a wrong one is an AssertionError."""
    known = supervised.state
    with contextlib.ExitStack() as stack:
        made: dict[str, Call] = {"rest": supervised.answers_right}
        for transport, url in (
            ("grpc", f"127.0.0.1:{known.first.grpc_port}"),
            ("http", f"http://127.0.0.1:{known.first.http_port}"),
        ):
            client = stack.enter_context(LycheeClient(url, timeout_s=TIMEOUT_S, embedding_cache=None))
            made[transport] = make_sdk_call(client, root)
        yield made


def make_sdk_call(client: LycheeClient, root: Path) -> Call:
    def call() -> bool:
        query, documents = make_documents(root)
        try:
            response = client.rerank(query, documents)
        except LycheeError:
            return False
        assert [result.index for result in response.results] == [0, 1], response
        assert not response.errors, response
        return True

    return call


@contextlib.contextmanager
def load(calls: dict[str, Call], seen: Seen) -> Iterator[None]:
    """Call over every transport until the block ends, and note what comes of it."""
    ended = threading.Event()

    def run(transport: str) -> None:
        while not ended.is_set():
            began_s = time.monotonic()
            try:
                outcome = "right" if calls[transport]() else "error"
            except AssertionError as error:
                outcome = "wrong"
                seen.problems.append(f"{transport}: {error}")
            if time.monotonic() - began_s > 2 * TIMEOUT_S:
                seen.problems.append(f"{transport}: no answer within {2 * TIMEOUT_S:g} s")
            seen.outcomes[transport, outcome] += 1
            if outcome != "right":
                time.sleep(LOOK_EVERY_S)

    threads = [threading.Thread(target=run, args=(transport,)) for transport in TRANSPORTS]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def look_at_readiness(server: RunningServer, ended: threading.Event, seen: Seen) -> None:
    """Note the readiness over and over; a gateway that does not answer is not ready."""
    while not ended.is_set():
        connection = http.client.HTTPConnection("127.0.0.1", server.gateway.port, timeout=1)
        ready = False
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/health/ready")
            ready = connection.getresponse().status == http.client.OK
        connection.close()
        seen.ready.append((time.monotonic(), ready))
        time.sleep(LOOK_EVERY_S)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
@pytest.mark.parametrize("target", ["triton", "text_encoder", "vision_encoder", "scoring_heads", "gateway"])
def test_nothing_is_wrong_empty_or_lost(
    supervised: RunningServer,
    calls: dict[str, Call],
    root: Path,
    target: str,
    number: signal.Signals,
) -> None:
    wait_for(supervised.is_ready, "a ready server")
    seen, ended = Seen(), threading.Event()
    watcher = threading.Thread(target=look_at_readiness, args=(supervised, ended, seen))
    with load(calls, seen):
        watcher.start()
        time.sleep(CALM_S)
        before = Counter(seen.outcomes)
        hurt_s = time.monotonic()
        hurt = supervised.send(target, number)
        supervised.wait_until_back(target, hurt)
        back_s = time.monotonic()
        time.sleep(NOTICED_WITHIN_S)
        after = Counter(seen.outcomes)
        time.sleep(CALM_S)
    ended.set()
    watcher.join()
    fell_s = next((at_s - hurt_s for at_s, ready in seen.ready if at_s > hurt_s and not ready), None)
    result = {
        "target": target,
        "signal": number.name,
        "back_s": round(back_s - hurt_s, 1),
        "not_ready_after_s": None if fell_s is None else round(fell_s, 1),
        **{f"{transport} {outcome}": count for (transport, outcome), count in sorted(seen.outcomes.items())},
    }
    artifacts = root / "tests/artifacts"
    artifacts.mkdir(exist_ok=True)
    with (artifacts / "fault_matrix.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")
    assert not seen.problems
    for transport in TRANSPORTS:
        assert before[transport, "right"], (transport, result)
        assert seen.outcomes[transport, "right"] > after[transport, "right"], (transport, result)
    # A gap shorter than this need not show.
    assert fell_s is not None or back_s - hurt_s < NOTICED_WITHIN_S, result
    limit_s = NOTICED_WITHIN_S if number is signal.SIGKILL else 10 + NOTICED_WITHIN_S  # it may be a long answer
    assert fell_s is None or fell_s < limit_s, result
    assert seen.ready[-1][1], "the server is back, and /health/ready does not say so within 5 s"
    supervised.check_tidy()
