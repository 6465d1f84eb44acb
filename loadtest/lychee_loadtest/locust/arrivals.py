"""Calls that arrive at random, at a stated rate, whether or not the server keeps up (an open model).

Whoever waits for an answer before the next call begins does not notice most of a stall: it sends less while it lasts
("coordinated omission"). Here the times of the calls are drawn beforehand, as a Poisson process; a call counts from the
time at which it was to begin, also when it had to wait for a free user.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import gevent  # type: ignore[import-untyped]  # ships no types
from gevent.queue import Queue  # type: ignore[import-untyped]  # ships no types

from lychee_loadtest.locust.latencies import Latencies
from lychee_loadtest.locust.shapes import Stage, level_at
from lychee_loadtest.locust.workload import Call

__all__ = ["Arrival", "ArrivalCounts", "Arrivals", "draw_arrival_times"]

_CLOSED_PAUSE_S: Final = 0.05


def draw_arrival_times(rate_per_s: float, stages: Sequence[Stage], draw: random.Random) -> Iterator[float]:
    """Yield the times of a Poisson process, in seconds since the start, until the last stage ends.

    Times are drawn at the full rate, and each is kept with the level of its stage as probability ("thinning").

    Args:
        rate_per_s: How many calls arrive per second at the full load; more than 0.
        stages: How the load changes.
        draw: The source of randomness.

    Source: Lewis and Shedler, Simulation of nonhomogeneous Poisson processes by thinning, 1979.
    """
    time_s, end_s = 0.0, stages[-1].end_s
    while (time_s := time_s + draw.expovariate(rate_per_s)) < end_s:
        if draw.random() < level_at(stages, time_s):
            yield time_s


@dataclass(frozen=True, slots=True)
class Arrival:
    """A call and when it was to begin, on the clock of `time.perf_counter`."""

    call: Call
    intended_s: float


@dataclass
class ArrivalCounts:
    """What became of the arrivals of one process.

    Attributes:
        count: How many calls there were whose time has come.
        waited: How many of them found no free user.
        unserved: How many of them no user had taken in the end.
        lateness: By how much the process, and not the users, handed calls over too late.
    """

    count: int = 0
    waited: int = 0
    unserved: int = 0
    lateness: Latencies = field(default_factory=Latencies)

    def merge(self, other: ArrivalCounts) -> None:
        """Add those of another process."""
        self.count += other.count
        self.waited += other.waited
        self.unserved += other.unserved
        self.lateness.merge(other.lateness)

    def pack(self) -> tuple[int, int, int, Any]:
        """Return what another process needs to know these; see `unpack`."""
        return self.count, self.waited, self.unserved, self.lateness.pack()

    @classmethod
    def unpack(cls, count: int, waited: int, unserved: int, lateness: Any) -> ArrivalCounts:
        """Make them from what `pack` returned."""
        return cls(count, waited, unserved, Latencies.unpack(*lateness))


class Arrivals:
    """Hands each call to a free user at its time; the next call is made while its time has not come.

    Args:
        times_s: When the calls are to begin, ascending, in seconds after this was made.
        make_call: Makes the next call.

    Attributes:
        counts: What became of the arrivals so far.
    """

    def __init__(self, times_s: Iterator[float], make_call: Callable[[], Call]) -> None:
        self.counts = ArrivalCounts()
        self._times_s = times_s
        self._make_call = make_call
        self._queue: Queue[Arrival | None] = Queue()
        self._free_users = 0
        self._origin_s = time.perf_counter()
        self._stopped = False
        self._greenlet: gevent.Greenlet[..., None] | None = None

    @property
    def started(self) -> bool:
        """Whether calls begin, or have begun."""
        return self._greenlet is not None

    def start(self) -> None:
        """Let the calls begin whose time is still to come; the users have to be there now."""
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Let no further call begin, and send the waiting users away; the calls that wait stay unserved."""
        self._stopped = True
        if self._greenlet is not None:
            self._greenlet.kill()
        self.counts.unserved = max(0, self._queue.qsize() - self._free_users)
        for _ in range(self._free_users):
            self._queue.put(None)

    def take(self) -> Arrival | None:
        """Wait for the next call; None when there are no more."""
        if self._stopped:
            gevent.sleep(_CLOSED_PAUSE_S)
            return None
        self._free_users += 1
        try:
            arrival: Arrival | None = self._queue.get()
            return arrival
        finally:
            self._free_users -= 1

    def _run(self) -> None:
        begins_s = time.perf_counter() - self._origin_s
        for time_s in self._times_s:
            if time_s < begins_s:
                continue
            call = self._make_call()
            intended_s = self._origin_s + time_s
            gevent.sleep(max(0.0, intended_s - time.perf_counter()))
            self.counts.count += 1
            self.counts.lateness.add(1e3 * (time.perf_counter() - intended_s))
            self.counts.waited += self._free_users <= self._queue.qsize()
            self._queue.put(Arrival(call, intended_s))
