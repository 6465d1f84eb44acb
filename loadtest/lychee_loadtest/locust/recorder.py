"""Counts the calls of a run in short windows, so that rates and latencies can be put together for any part of it.

Locust's own statistics have no time course of latencies and no lanes. Each process records its own calls; worker
processes send theirs to the master along with Locust's reports.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from lychee_loadtest.locust.latencies import Latencies
from lychee_loadtest.results.results import CallStatistics

__all__ = ["CallKind", "CallResult", "Recorder"]

CallResult: TypeAlias = Literal["answered", "failed", "overloaded"]


class CallKind(NamedTuple):
    """What kind of call it was; statistics are kept apart by these."""

    transport: str
    lane: str
    modality: str

    @property
    def name(self) -> str:
        """The name under which results and limits know it."""
        return f"{self.transport} {self.lane}/{self.modality}"


@dataclass
class _Cell:
    """The calls of one kind that ended in one window."""

    outcomes: Counter[str] = field(default_factory=Counter)
    documents: float = 0.0
    latencies: Latencies = field(default_factory=Latencies)

    def merge(self, other: _Cell) -> None:
        self.outcomes.update(other.outcomes)
        self.documents += other.documents
        self.latencies.merge(other.latencies)


class Recorder:
    """Keeps the calls of one process, or of all.

    Args:
        window_s: How long a window is.

    Attributes:
        messages: How often each failure came.
    """

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self.messages: Counter[str] = Counter()
        self._cells: dict[tuple[int, CallKind], _Cell] = {}

    def record(self, ended_at_s: float, kind: CallKind, outcome: CallResult, latency_ms: float, documents: int) -> None:
        """Count one call.

        Args:
            ended_at_s: When the call ended, on a clock that all processes share: seconds since the epoch.
            kind: What kind of call it was.
            outcome: How the call ended; latency and documents count only for "answered".
            latency_ms: How long the call took, from the time at which it was to begin.
            documents: How many documents the call ranked; they are spread over the time of the call.
        """
        last = math.floor(ended_at_s / self.window_s)
        cell = self._cell(last, kind)
        cell.outcomes[outcome] += 1
        if outcome != "answered":
            return
        cell.latencies.add(latency_ms)
        began_at_s = ended_at_s - latency_ms / 1e3
        first = math.floor(began_at_s / self.window_s)
        if first == last:
            cell.documents += documents
            return
        # Of a long call, each window gets its share: all at the end would make bulk throughput a row of peaks.
        for window in range(first, last + 1):
            begin_s, end_s = window * self.window_s, (window + 1) * self.window_s
            share = (min(end_s, ended_at_s) - max(begin_s, began_at_s)) / (ended_at_s - began_at_s)
            self._cell(window, kind).documents += documents * share

    def take(self) -> dict[str, Any]:
        """Return what was recorded since the last time, for another process, and forget it."""
        cells = [
            (window, list(kind), dict(cell.outcomes), cell.documents, *cell.latencies.pack())
            for (window, kind), cell in self._cells.items()
        ]
        taken = {"cells": cells, "messages": dict(self.messages)}
        self._cells, self.messages = {}, Counter()
        return taken

    def add(self, taken: dict[str, Any]) -> None:
        """Add what another process returned from `take`."""
        self.messages.update(taken["messages"])
        for window, kind, outcomes, documents, counts, max_ms in taken["cells"]:
            cell = _Cell(Counter(outcomes), documents, Latencies.unpack(counts, max_ms))
            self._cell(window, CallKind(*kind)).merge(cell)

    def kinds(self) -> list[CallKind]:
        """Return the kinds of calls that there were, sorted."""
        return sorted({kind for _, kind in self._cells})

    def windows(self, is_meant: Callable[[CallKind], bool]) -> range:
        """Return the numbers of the windows from the first to the last with a call of some kinds.

        A window begins at `window_s` times its number.
        """
        numbers = [window for window, kind in self._cells if is_meant(kind)]
        return range(min(numbers), max(numbers) + 1) if numbers else range(0)

    def sum_up(
        self, name: str, seconds: float, is_meant: Callable[[CallKind], bool], windows: Iterable[int] | None = None
    ) -> CallStatistics:
        """Put the calls of some kinds and windows together.

        Args:
            name: The name that the sum gets.
            seconds: How many seconds the rates refer to.
            is_meant: Says whether a kind counts.
            windows: The numbers of the windows that count; None: all.
        """
        chosen = None if windows is None else set(windows)
        total = _Cell()
        for (window, kind), cell in self._cells.items():
            if is_meant(kind) and (chosen is None or window in chosen):
                total.merge(cell)
        calls = total.outcomes["answered"]
        return CallStatistics(
            name=name,
            calls=calls,
            failures=total.outcomes["failed"],
            overloads=total.outcomes["overloaded"],
            documents=round(total.documents),
            calls_per_s=calls / seconds,
            documents_per_s=total.documents / seconds,
            p50_ms=total.latencies.percentile_ms(50),
            p90_ms=total.latencies.percentile_ms(90),
            p99_ms=total.latencies.percentile_ms(99),
            max_ms=total.latencies.max_ms,
        )

    def _cell(self, window: int, kind: CallKind) -> _Cell:
        return self._cells.setdefault((window, kind), _Cell())
