"""One replica: requests wait in its queue, are merged into batches, and are counted as Triton counts them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Counters", "Replica", "Request"]


class Request(NamedTuple):
    """A part of a call that fits into one batch."""

    call: int
    arrived_s: float
    rows: int


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
        self.rows += request.rows

    def begin(self) -> list[Request]:
        """Take as many waiting requests as fit into one batch; none while every instance is busy."""
        batch: list[Request] = []
        if self.running == self.instances:
            return batch
        rows = 0
        while self.waiting and rows + self.waiting[0].rows <= self.max_rows:
            batch.append(self.waiting.popleft())
            rows += batch[-1].rows
        self.running += bool(batch)
        return batch

    def finish(self, batch: list[Request], begun_s: float, now_s: float) -> None:
        """Count what a batch was; like Triton, not before it is done."""
        self.running -= 1
        self.busy_s += (now_s - begun_s) / self.instances
        self.requests += len(batch)
        for request in batch:
            self.queue_s += begun_s - request.arrived_s
            self.rows -= request.rows

    def scrape(self, now_s: float, keep_s: float) -> None:
        """Remember the counters for as long as the longest window reaches back."""
        self.history.append(Counters(now_s, self.requests, self.queue_s, self.busy_s))
        while self.history[0].time_s < now_s - keep_s:
            self.history.popleft()
