"""Ten minutes of mixed calls: the memory of every process stays where it is."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from lychee_client import LycheeClient
from lychee_server import processes, state

from chaos.running_server import RunningServer
from chaos.test_fault_matrix import make_documents

pytestmark = [pytest.mark.triton, pytest.mark.slow, pytest.mark.chaos]
DURATION_S = 600
WARM_UP_S = 120
LOOK_EVERY_S = 10
MAX_GROWTH = 0.05


@pytest.fixture(scope="module")
def full_cache() -> Iterator[None]:
    """Have the gateway keep so little that its cache is full before memory is compared."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LYCHEE_GATEWAY_CACHE_MB", "1")
        yield


def measure(server: RunningServer) -> dict[str, int]:
    """Return the resident bytes of gateway, Triton and the stubs, by pid and name."""
    found = [*processes.find_processes(state.own_marker()), psutil.Process(server.gateway.pid)]
    return {f"{process.pid} {process.name()}": process.memory_info().rss for process in found}


def test_memory_stays_flat(full_cache: None, supervised: RunningServer, root: Path) -> None:
    ended = threading.Event()
    wrong: list[object] = []
    count = 0

    def rest() -> None:
        nonlocal count
        while not ended.is_set():
            count += supervised.answers_right()

    def sdk() -> None:
        nonlocal count
        with LycheeClient(f"127.0.0.1:{supervised.state.first.grpc_port}") as client:
            while not ended.is_set():
                query, documents = make_documents(root)
                for bad in ([], [b"no image"]):  # bad input, over and over
                    response = client.rerank(query, [*documents, *bad])  # type: ignore[list-item]
                    failed = [error.index for error in response.errors]
                    if [result.index for result in response.results] != [0, 1] or failed != [2] * len(bad):
                        wrong.append(response)
                count += 1

    threads = [threading.Thread(target=caller) for caller in (rest, rest, sdk)]
    for thread in threads:
        thread.start()
    warm: dict[str, int] = {}
    peak: dict[str, int] = {}
    began_s = time.monotonic()
    while (elapsed_s := time.monotonic() - began_s) < DURATION_S:
        now = measure(supervised)
        seen = warm if elapsed_s < WARM_UP_S else peak
        for name, size_bytes in now.items():
            seen[name] = max(seen.get(name, 0), size_bytes)
        time.sleep(LOOK_EVERY_S)
    ended.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert count > DURATION_S  # a call a second at least
    assert warm.keys() == peak.keys(), "a process was replaced"
    growth = {name: peak[name] / warm[name] - 1 for name in warm}
    print(f"{count} calls; growth after the warm-up: {growth}")
    assert max(growth.values()) <= MAX_GROWTH, growth
