"""The threads of a client: short jobs never wait for images, and images get their turns."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

import pytest
from lychee_client import _workers
from lychee_client._workers import BULK_WEIGHT, CallJobs, Workers
from lychee_client.preprocessing.decoding_memory import MIB, SMALL_BYTES, DecodingMemory

TIMEOUT_S = 30
LARGE_BYTES = 100 * MIB
LIMIT_BYTES = 256 * MIB


class Gate:
    """Jobs that begin and then wait until they are let go."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.begun: list[str] = []
        self.ended: list[str] = []
        self._changed = threading.Condition()

    def job(self, name: str) -> Callable[[], str]:
        def run() -> str:
            with self._changed:
                self.begun.append(name)
                self._changed.notify_all()
            assert self.opened.wait(4 * TIMEOUT_S)
            self.ended.append(name)
            return name

        return run

    def wait_for(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.begun) >= count, TIMEOUT_S), self.begun


@pytest.fixture
def memory() -> DecodingMemory:
    return DecodingMemory(LIMIT_BYTES)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


@pytest.fixture
def workers(memory: DecodingMemory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workers]:
    monkeypatch.setattr(_workers.os, "cpu_count", lambda: 2)
    workers = Workers(memory=memory)
    yield workers
    workers.shutdown()


def begin(call: CallJobs, job: Callable[[], Any], size_bytes: int = MIB) -> Future[Any]:
    return call.begin(job, lambda: size_bytes)


def fill(workers: Workers, gate: Gate) -> list[Future[Any]]:
    """Occupy both decoding threads with small images of one call."""
    call = workers.open_call()
    filling = [begin(call, gate.job(f"filling {number}")) for number in range(2)]
    gate.wait_for(2)
    return filling


def test_a_short_job_is_done_while_every_decoding_thread_is_busy(workers: Workers, gate: Gate) -> None:
    fill(workers, gate)
    assert workers.open_call().begin(lambda: "tokens").result(TIMEOUT_S) == "tokens"
    assert gate.ended == []


def test_a_second_call_does_not_wait_for_all_images_of_the_first(workers: Workers, gate: Gate) -> None:
    fill(workers, gate)
    order: list[str] = []
    first, second = workers.open_call(), workers.open_call()
    futures = [begin(first, lambda: order.append("first"), SMALL_BYTES) for _ in range(8)]
    futures.append(begin(second, lambda: order.append("second"), SMALL_BYTES))
    gate.opened.set()
    for future in futures:
        future.result(TIMEOUT_S)
    assert "second" in order[:4]


def test_bulk_images_yield_and_still_get_turns() -> None:
    order: list[str] = []
    go = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        workers = Workers(memory=DecodingMemory(LIMIT_BYTES))
        workers._decoding = executor
        executor.submit(go.wait, TIMEOUT_S)
        bulk, interactive = workers.open_call(bulk=True), workers.open_call()
        futures = [begin(bulk, lambda: order.append("bulk")) for _ in range(4)]
        futures += [begin(interactive, lambda: order.append("interactive")) for _ in range(4 * BULK_WEIGHT)]
        go.set()
        for future in futures:
            future.result(TIMEOUT_S)
    assert order.count("bulk") == 4
    first_half = order[: 2 * BULK_WEIGHT + 2]
    assert 1 <= first_half.count("bulk") <= 3
    assert order.index("interactive") <= 1


def test_nobody_saves_turns_up() -> None:
    order: list[str] = []
    go = threading.Event()
    with ThreadPoolExecutor(1) as executor:
        workers = Workers(memory=DecodingMemory(LIMIT_BYTES))
        workers._decoding = executor
        old = workers.open_call()
        for _ in range(10):
            begin(old, lambda: None).result(TIMEOUT_S)
        executor.submit(go.wait, TIMEOUT_S)
        new = workers.open_call()  # it has had nothing yet: that gives it the first turn, not the first ten
        futures = [begin(old, lambda: order.append("old")) for _ in range(5)]
        futures += [begin(new, lambda: order.append("new")) for _ in range(5)]
        go.set()
        for future in futures:
            future.result(TIMEOUT_S)
    assert "old" in order[:3]


def test_large_images_leave_a_thread_to_small_ones(workers: Workers, gate: Gate) -> None:
    call = workers.open_call()
    large = [begin(call, gate.job(f"large {number}"), LARGE_BYTES) for number in range(3)]
    gate.wait_for(1)
    assert begin(workers.open_call(), lambda: "small").result(TIMEOUT_S) == "small"
    assert gate.begun == ["large 0"]
    gate.opened.set()
    assert [future.result(TIMEOUT_S) for future in large] == ["large 0", "large 1", "large 2"]


def test_an_image_waits_for_its_memory_also_in_another_client(memory: DecodingMemory, gate: Gate) -> None:
    here, there = Workers(memory=memory), Workers(memory=memory)
    try:
        held = begin(here.open_call(), gate.job("held"), LIMIT_BYTES - MIB)
        gate.wait_for(1)
        waiting = begin(there.open_call(), gate.job("waiting"), LARGE_BYTES)
        assert begin(there.open_call(), lambda: "small").result(TIMEOUT_S) == "small"  # it has been looked at
        assert gate.begun == ["held"]
        gate.opened.set()
        assert (held.result(TIMEOUT_S), waiting.result(TIMEOUT_S)) == ("held", "waiting")
    finally:
        here.shutdown()
        there.shutdown()


def test_a_failed_image_gives_its_memory_back(workers: Workers, memory: DecodingMemory) -> None:
    def fail() -> None:
        raise ValueError("broken")

    call = workers.open_call()
    for _ in range(3):
        with pytest.raises(ValueError, match="broken"):
            begin(call, fail, LIMIT_BYTES).result(TIMEOUT_S)
    assert begin(call, lambda: "next", LIMIT_BYTES).result(TIMEOUT_S) == "next"


def test_what_cannot_be_weighed_is_left_to_its_job(workers: Workers) -> None:
    def weigh() -> int:
        raise OSError("no such file")

    assert workers.open_call().begin(lambda: "says so itself", weigh).result(TIMEOUT_S) == "says so itself"


def test_a_cancelled_image_costs_nothing(workers: Workers, gate: Gate) -> None:
    fill(workers, gate)
    call = workers.open_call()
    done: list[int] = []
    cancelled = [begin(call, lambda: done.append(0)) for _ in range(3)]
    last = begin(call, lambda: done.append(1))
    assert all(future.cancel() for future in cancelled)
    gate.opened.set()
    last.result(TIMEOUT_S)
    assert done == [1]


def test_shutdown_cancels_what_waits_and_refuses_more(workers: Workers, gate: Gate) -> None:
    fill(workers, gate)
    call = workers.open_call()
    waiting = begin(call, lambda: None)
    workers.shutdown()
    with pytest.raises(CancelledError):
        waiting.result(TIMEOUT_S)
    for weigh in (None, lambda: MIB):
        with pytest.raises(RuntimeError):
            call.begin(lambda: None, weigh)
