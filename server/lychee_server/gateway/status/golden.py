"""The golden pairs as the status tells of them, and replaying them now."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from lychee_client import ModelNotReadyError

from lychee_server.gateway.health import Health
from lychee_server.gateway.limits import TooBusyError
from lychee_server.gateway.status.answer import GoldenPair, GoldenState

TIMEOUT_S: Final = 60.0
PAUSE_S: Final = 5.0


def describe_golden(health: Health, *, triton_live: bool = True) -> GoldenState:
    """Return the last replay. It counts only while Triton and its models have been there ever since."""
    report = health.golden
    if report is None:
        return GoldenState(state="never", checked_at=None, max_abs_error=None, lost_at=health.lost_at)
    outdated = health.lost_at is not None or not triton_live
    return GoldenState(
        state="outdated" if outdated else "passed" if report.passed else "failed",
        checked_at=health.golden_checked_at,
        lost_at=health.lost_at,
        tolerance=report.tolerance,
        max_abs_error=_finite(report.max_abs_error),
        pairs=[
            GoldenPair(expected=pair.expected, measured=_finite(pair.measured), abs_error=_finite(pair.abs_error))
            for pair in report.pairs
        ],
    )


class GoldenReplay:
    """Replays the golden pairs when asked: one replay at a time, and with a pause behind each.

    Args:
        health: Replays them.
        clock: Tells the seconds; for tests.
    """

    def __init__(self, health: Health, clock: Callable[[], float] = time.monotonic) -> None:
        self._health = health
        self._clock = clock
        self._running = False
        self._free_at_s = -math.inf

    async def run(self) -> GoldenState:
        """Replay them now.

        Raises:
            TooBusyError: They are being replayed, or were a moment ago.
            ModelNotReadyError: Triton or one of its models is away, or did not answer in time.
        """
        wait_s = self._free_at_s - self._clock()
        if self._running or wait_s > 0:
            what = "are being replayed" if self._running else "were replayed a moment ago"
            raise TooBusyError(f"the golden pairs {what}; see GET /v1/status", retry_after_s=math.ceil(max(1, wait_s)))
        before = self._health.golden_checked_at
        self._running = True
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(TIMEOUT_S):
                    await self._health.recheck()
        finally:
            self._running = False
            self._free_at_s = self._clock() + PAUSE_S
        if self._health.golden_checked_at == before or self._health.lost_at is not None:
            reason = self._health.reason or f"they took longer than {TIMEOUT_S:g} s"
            raise ModelNotReadyError(f"the golden pairs were not replayed: {reason}")
        return describe_golden(self._health)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
