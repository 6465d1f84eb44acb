"""Whether the load generator itself keeps up: a number from one that does not is about itself, not about the server.

All callers of a process share one thread, gevent's event loop ("hub"). Whatever holds it up delays every caller, and
every latency measured then is too long. So a greenlet asks to be woken every few milliseconds and counts by how much
that comes too late; and the thread's CPU time says how near it is to all that one core can do.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Final

import gevent  # type: ignore[import-untyped]  # ships no types

from lychee_loadtest.locust.latencies import Latencies

__all__ = ["HubMonitor", "HubUse"]

INTERVAL_S: Final = 0.02


@dataclass
class HubUse:
    """What was seen of one process' event loop.

    Attributes:
        lag: By how much it woke a greenlet too late.
        cpu_shares: The CPU time of its thread in each window, in seconds per second.
    """

    lag: Latencies = field(default_factory=Latencies)
    cpu_shares: list[float] = field(default_factory=list)

    def add_lag(self, lag_s: float) -> None:
        """Count a lag, and the shorter ones of those wake-ups that had their time while the loop was held up.

        Without those, an event loop that stands still for a second would count as one late wake-up among thousands.
        """
        while lag_s >= 0:
            self.lag.add(1e3 * lag_s)
            lag_s -= INTERVAL_S

    def pack(self) -> tuple[Any, list[float]]:
        """Return what another process needs to know this; see `unpack`."""
        return self.lag.pack(), self.cpu_shares

    @classmethod
    def unpack(cls, lag: Any, cpu_shares: list[float]) -> HubUse:
        """Make one from what `pack` returned."""
        return cls(Latencies.unpack(*lag), cpu_shares)


class HubMonitor:
    """Watches the event loop of the thread that starts it.

    Args:
        window_s: How long the windows are over which CPU time is counted.
    """

    def __init__(self, window_s: float) -> None:
        self.use = HubUse()
        self._window_s = window_s
        self._greenlet: gevent.Greenlet[..., None] | None = None

    def start(self) -> None:
        """Begin."""
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """End, at the latest when the load ends: an idle loop would make the numbers look better."""
        if self._greenlet is not None:
            self._greenlet.kill()
            self._greenlet = None

    def _run(self) -> None:
        window_began_s, cpu_began_s = time.perf_counter(), time.thread_time()
        while True:
            due_s = time.perf_counter() + INTERVAL_S
            gevent.sleep(INTERVAL_S)
            now_s = time.perf_counter()
            self.use.add_lag(now_s - due_s)
            if now_s - window_began_s >= self._window_s:
                cpu_s = time.thread_time()
                self.use.cpu_shares.append((cpu_s - cpu_began_s) / (now_s - window_began_s))
                window_began_s, cpu_began_s = now_s, cpu_s
