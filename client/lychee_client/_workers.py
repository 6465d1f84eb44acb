"""The threads of a client: texts never wait for images, and images are decoded in fair turns."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from lychee_client.preprocessing.decoding_memory import SMALL_BYTES, DecodingMemory, decoding_memory

# Each thread may hold a large image, and more threads than cores decode no faster. One large image leaves a thread to
# the small ones, so there are at least two.
MAX_WORKERS: Final = 4
MIN_WORKERS: Final = 2
# What a bulk call decodes counts so many times: it gets a turn now and then, however many interactive calls there are.
BULK_WEIGHT: Final = 8
LEAST_BYTES: Final = 2**20  # what an image counts at least
NICENESS: Final = 10  # of the decoding threads, where the system gives each thread its own

T = TypeVar("T")


@dataclass(slots=True)
class _Decoding:
    """One image to be decoded."""

    future: Future[Any]
    job: Callable[[], Any]
    weigh: Callable[[], int]
    size_bytes: int | None = None  # None: not weighed yet


@dataclass(eq=False, slots=True)
class _Queue:
    """The images of one call that wait, and how much it has had."""

    weight: int
    had: int = 0
    waiting: deque[_Decoding] = field(default_factory=deque)


class Workers:
    """Runs the jobs of all calls of one client.

    There are short jobs and images. An image's turn comes when a thread is free and its memory too: first the call that
    has had the least so far, by the size of its decoded images. At most all threads but one hold a large image.

    Args:
        executor: Runs all jobs in the order in which they come, in place of threads of its own, and stays open. Nothing
            submits to it from its own threads: gevent's would wait for ever.
        memory: Bounds what images take while they are decoded; None: what the process shares.
    """

    def __init__(self, executor: Executor | None = None, memory: DecodingMemory | None = None) -> None:
        threads = min(MAX_WORKERS, os.cpu_count() or 1)
        width = max(MIN_WORKERS, threads)
        self._memory = memory or decoding_memory()
        self._owned = executor is None
        self._short = executor or ThreadPoolExecutor(threads, "lychee-client")
        self._decoding = ThreadPoolExecutor(width, "lychee-decode", initializer=_yield_to_others)
        self._max_large = width - 1
        self._large = 0
        self._lock = threading.Lock()
        self._queues: set[_Queue] = set()  # those with images that wait
        self._clock = 0
        self._closed = False
        self._memory.watch(self._wake)

    def open_call(self, *, bulk: bool = False) -> CallJobs:
        """Return what starts the jobs of one call."""
        return CallJobs(self, _Queue(BULK_WEIGHT if bulk else 1))

    def shutdown(self) -> None:
        """Cancel the jobs that wait, and take no more."""
        with self._lock:
            self._closed = True
            waiting = [decoding for queue in self._queues for decoding in queue.waiting]
            self._queues.clear()
        for decoding in waiting:
            decoding.future.cancel()
        for pool in (self._short, self._decoding) if self._owned else ():
            pool.shutdown(wait=False, cancel_futures=True)

    def _submit(self, job: Callable[[], T]) -> Future[T]:
        return self._short.submit(job)

    def _enqueue(self, queue: _Queue, decoding: _Decoding) -> None:
        with self._lock:
            if self._closed:
                raise RuntimeError("shut down")
            if queue not in self._queues:
                queue.had = max(queue.had, self._clock)  # nobody saves turns up
                self._queues.add(queue)
            queue.waiting.append(decoding)
        self._decoding.submit(self._run_next)

    def _wake(self) -> None:
        """Let a thread look again: something has been given back."""
        with self._lock:
            idle = self._closed or not self._queues
        if not idle:
            with suppress(RuntimeError):  # shut down meanwhile
                self._decoding.submit(self._run_next)

    def _run_next(self) -> None:
        """Decode one image, if one may be decoded now."""
        while (taken := self._take()) is not None:
            queue, decoding = taken
            if decoding.size_bytes is None:
                decoding.size_bytes = _weigh(decoding.weigh)
                self._put_back(queue, decoding)
                continue
            self._wake()  # another thread may have looked in vain before
            try:
                _run(decoding)
            finally:
                with self._lock:
                    self._large -= decoding.size_bytes > SMALL_BYTES
                self._memory.give(decoding.size_bytes)
                self._wake()
            return

    def _take(self) -> tuple[_Queue, _Decoding] | None:
        """Take the next image: one to be weighed, or one that has all it needs."""
        with self._lock:
            large_may_pass = True  # the large ones behind one that waits for memory wait too
            for queue in sorted(self._queues, key=lambda queue: queue.had):
                while queue.waiting and queue.waiting[0].future.cancelled():
                    queue.waiting.popleft()
                if not queue.waiting:
                    self._queues.remove(queue)
                    continue
                decoding = queue.waiting[0]
                size_bytes = decoding.size_bytes
                if size_bytes is not None:
                    is_large = size_bytes > SMALL_BYTES
                    if is_large and not (large_may_pass and self._large < self._max_large):
                        continue
                    if not self._memory.take(size_bytes):
                        large_may_pass = False
                        continue
                    self._large += is_large
                    self._clock = queue.had
                    queue.had += queue.weight * max(size_bytes, LEAST_BYTES)
                queue.waiting.popleft()
                if not queue.waiting:
                    self._queues.remove(queue)
                return queue, decoding
            return None

    def _put_back(self, queue: _Queue, decoding: _Decoding) -> None:
        with self._lock:
            if self._closed:
                decoding.future.cancel()
                return
            queue.waiting.appendleft(decoding)
            self._queues.add(queue)


@dataclass(frozen=True, slots=True)
class CallJobs:
    """Starts the jobs of one call."""

    _workers: Workers
    _queue: _Queue

    def begin(self, job: Callable[[], T], weigh: Callable[[], int] | None = None) -> Future[T]:
        """Start a job.

        Args:
            job: The work.
            weigh: Returns how many bytes the job takes, where it decodes an image; it is called in a thread. None: the
                job is a short one.

        Raises:
            RuntimeError: The workers, or the caller's executor, are shut down.
        """
        if weigh is None or not self._workers._owned:
            return self._workers._submit(job)
        future: Future[T] = Future()
        self._workers._enqueue(self._queue, _Decoding(future, job, weigh))
        return future


def _weigh(weigh: Callable[[], int]) -> int:
    try:
        return weigh()
    except Exception:  # the job will stumble over it too, and say so
        return 0


def _run(decoding: _Decoding) -> None:
    if not decoding.future.set_running_or_notify_cancel():
        return
    try:
        result = decoding.job()
    except BaseException as error:  # whoever waits for the future gets it
        decoding.future.set_exception(error)
    else:
        decoding.future.set_result(result)


def _yield_to_others() -> None:
    """Give this thread less of the processors than those that answer calls; only Linux can."""
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
