"""What is known of a run, and the results made of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from lychee_loadtest.locust.arrivals import ArrivalCounts
from lychee_loadtest.locust.generator import HubUse
from lychee_loadtest.locust.latencies import Latencies
from lychee_loadtest.locust.recorder import CallKind, Recorder
from lychee_loadtest.locust.shapes import Stage
from lychee_loadtest.locust.workload import LANES, MODALITIES, TRANSPORTS
from lychee_loadtest.machine import describe_machine
from lychee_loadtest.results.results import CallStatistics, GeneratorHealth, LoadTestResults, Period

__all__ = ["EVERYTHING", "RunRecord", "known_names"]

EVERYTHING: Final = "all"
_MAX_MESSAGES: Final = 20


def known_names() -> list[str]:
    """Return every name that statistics may have."""
    lanes = [f"{transport} {lane}" for transport in TRANSPORTS for lane in LANES]
    kinds = [CallKind(*kind).name for kind in _combinations()]
    return [EVERYTHING, *LANES, *lanes, *kinds]


@dataclass
class RunRecord:
    """Calls, users and health of the generator, over time. Times are seconds since the epoch.

    Attributes:
        calls: The calls of all processes.
        users: How many users there were, by number of the window.
        hubs: What each process saw of its event loop.
        arrivals: What became of each process' arrivals; empty for a closed model.
    """

    calls: Recorder
    users: dict[int, int] = field(default_factory=dict)
    hubs: dict[str, HubUse] = field(default_factory=dict)
    arrivals: dict[str, ArrivalCounts] = field(default_factory=dict)
    _began_s: float = 0.0
    _ended_s: float | None = None
    _stages: Sequence[Stage] = ()
    _arrival_rate_per_s: float | None = None

    def begin(self, stages: Sequence[Stage], arrival_rate_per_s: float | None) -> None:
        """Note when the run began, and its plan."""
        self._began_s, self._ended_s = time.time(), None
        self._stages, self._arrival_rate_per_s = stages, arrival_rate_per_s

    def end(self) -> None:
        """Note when the users were told to stop; what they have begun still counts."""
        self._ended_s = self._ended_s or time.time()

    def results(self, settings: dict[str, str | int | float | bool | None]) -> LoadTestResults:
        """Put everything together."""
        kinds = self.calls.kinds()
        names = {kind.name: {kind} for kind in kinds}
        sums: dict[str, set[CallKind]] = {EVERYTHING: set(kinds)}
        for kind in kinds:
            sums.setdefault(kind.lane, set()).add(kind)
        for kind in kinds:
            sums.setdefault(f"{kind.transport} {kind.lane}", set()).add(kind)
        return LoadTestResults(
            machine=describe_machine(),
            started_at=datetime.fromtimestamp(self._began_s, UTC).isoformat(timespec="seconds"),
            duration_s=self._duration_s,
            settings=settings,
            names=tuple(self._sum_up(name, chosen) for name, chosen in names.items()),
            sums=tuple(self._sum_up(name, chosen) for name, chosen in sums.items()),
            windows=tuple(self._windows()),
            steps=tuple(self._steps()),
            generator=self._judge_generator(),
            messages=dict(self.calls.messages.most_common(_MAX_MESSAGES)),
        )

    @property
    def _duration_s(self) -> float:
        return max(1e-3, (self._ended_s or time.time()) - self._began_s)

    def _sum_up(self, name: str, kinds: set[CallKind]) -> CallStatistics:
        """Put calls of the whole run together; rates refer to the time until the last of them ended."""
        last = self.calls.windows(kinds.__contains__).stop * self.calls.window_s - self._began_s
        return self.calls.sum_up(name, max(self._duration_s, last), kinds.__contains__)

    def _windows(self) -> Iterator[Period]:
        for window in self._numbers():
            start_s, end_s = self._span(window)
            if end_s - start_s >= self.calls.window_s / 2:
                yield self._period(start_s, end_s, [window])

    def _steps(self) -> Iterator[Period]:
        """Yield the stages of the plan that lasted for at least one window, without the windows at their edges."""
        begins_s = 0.0
        for stage in self._stages:
            ends_s = min(stage.end_s, self._duration_s)
            windows = [
                window
                for window in self._numbers()
                if self._start_s(window) >= begins_s and self._start_s(window + 1) <= ends_s
            ]
            if windows:
                yield self._period(self._start_s(windows[0]), self._start_s(windows[-1] + 1), windows)
            begins_s = stage.end_s

    def _period(self, start_s: float, end_s: float, windows: Sequence[int]) -> Period:
        middle_s = (start_s + end_s) / 2
        level = next((stage.level for stage in self._stages if middle_s < stage.end_s), 0.0)
        rate = self._arrival_rate_per_s
        lanes = (self.calls.sum_up(lane, end_s - start_s, _in_lane(lane), windows) for lane in LANES)
        return Period(
            start_s=round(start_s, 3),
            duration_s=round(end_s - start_s, 3),
            users=self.users.get(windows[len(windows) // 2], 0),
            arrival_rate_per_s=None if rate is None else rate * level,
            lanes=tuple(lane for lane in lanes if lane.attempts or lane.documents),
        )

    def _numbers(self) -> range:
        """Return the numbers of the windows of the run."""
        width_s = self.calls.window_s
        return range(math.floor(self._began_s / width_s), math.ceil((self._began_s + self._duration_s) / width_s))

    def _start_s(self, window: int) -> float:
        return window * self.calls.window_s - self._began_s

    def _span(self, window: int) -> tuple[float, float]:
        return max(0.0, self._start_s(window)), min(self._duration_s, self._start_s(window + 1))

    def _judge_generator(self) -> GeneratorHealth:
        lag, arrivals = Latencies(), ArrivalCounts()
        for hub in self.hubs.values():
            lag.merge(hub.lag)
        for counts in self.arrivals.values():
            arrivals.merge(counts)
        shares = [hub.cpu_shares for hub in self.hubs.values() if hub.cpu_shares]
        return GeneratorHealth(
            processes=len(self.hubs),
            hub_lag_p50_ms=lag.percentile_ms(50),
            hub_lag_p99_ms=lag.percentile_ms(99),
            hub_lag_max_ms=lag.max_ms,
            cpu_share_mean=_max(sum(share) / len(share) for share in shares),
            cpu_share_max=_max(max(share) for share in shares),
            arrivals=arrivals.count,
            arrivals_waited=arrivals.waited,
            arrivals_unserved=arrivals.unserved,
            lateness_p50_ms=arrivals.lateness.percentile_ms(50),
            lateness_p99_ms=arrivals.lateness.percentile_ms(99),
            lateness_max_ms=arrivals.lateness.max_ms,
        )


def _max(values: Iterable[float]) -> float | None:
    return max(values, default=None)


def _in_lane(lane: str) -> Callable[[CallKind], bool]:
    return lambda kind: kind.lane == lane


def _combinations() -> Iterator[tuple[str, str, str]]:
    return ((transport, lane, modality) for transport in TRANSPORTS for lane in LANES for modality in MODALITIES)
