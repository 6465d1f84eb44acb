"""One replica: requests wait in its queue, are merged into batches, and are counted as Triton counts them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

__all__ = ["Counters", "Replica", "Request"]


Request: TypeAlias = tuple[int, float, int]
"""A part of a call that fits into one batch: the number of the call, when it came, its rows; a tuple, for speed."""


class Counters(NamedTuple):
    """What Prometheus reads of a replica at a time; everything but the time only grows.

    Attributes:
        time_s: When it was read.
        requests: How many requests were answered: `nv_inference_request_success`.
        queue_s: How long these waited, in all: `nv_inference_queue_duration_us`.
        busy_s: How long the cores computed.
    """

    time_s: float
    requests: int
    queue_s: float
    busy_s: float


@dataclass(eq=False, slots=True)
class Replica:
    """A queue, and the instances that compute batches of what waits in it."""

    instances: int
    max_rows: int
    started_s: float
    waiting: deque[Request] = field(default_factory=deque)
    rows: int = 0  # that wait or are computed
    running: int = 0
    requests: int = 0
    queue_s: float = 0.0
    busy_s: float = 0.0
    is_ready: bool = False
    is_leaving: bool = False
    history: deque[Counters] = field(default_factory=deque)

    def add(self, request: Request) -> None:
        """Let a request wait."""
        self.waiting.append(request)
        self.rows += request[2]

    def begin(self) -> tuple[list[Request], int]:
        """Take as many waiting requests as fit into a batch, and return them and their rows; none while all is busy."""
        batch: list[Request] = []
        rows, waiting = 0, self.waiting
        if self.running < self.instances:
            while waiting and rows + waiting[0][2] <= self.max_rows:
                rows += waiting[0][2]
                batch.append(waiting.popleft())
            self.running += bool(batch)
        return batch, rows

    def finish(self, batch: list[Request], begun_s: float, now_s: float) -> None:
        """Count what a batch was; like Triton, not before it is done."""
        self.running -= 1
        self.busy_s += (now_s - begun_s) / self.instances
        self.requests += len(batch)
        for _, arrived_s, rows in batch:
            self.queue_s += begun_s - arrived_s
            self.rows -= rows

    def scrape(self, now_s: float, keep_s: float) -> None:
        """Remember the counters for as long as the longest window reaches back."""
        self.history.append(Counters(now_s, self.requests, self.queue_s, self.busy_s))
        while self.history[0].time_s < now_s - keep_s:
            self.history.popleft()
