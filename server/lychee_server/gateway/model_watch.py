"""Whether each model answers. Triton calls a model ready whose process has died, so only its answers count."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from lychee_client import (
    AsyncLycheeClient,
    ConnectionFailedError,
    DeadlineExceededError,
    LycheeError,
    ServerOverloadedError,
)

PROOF_S: Final = 1.5  # for so long an answer proves that a model lives
SILENCE_S: Final = 5.0  # a model that answered nothing for so long is dead; a slower one gets more
PROBE_TIMEOUT_S: Final = 30.0
_SLOWNESS: Final = 4  # times the slowest probe that was answered
_BUSY: Final = (ServerOverloadedError, DeadlineExceededError, ConnectionFailedError)  # says nothing of the model


class ModelWatch:
    """Proves of every model that it answers: by the calls that are answered anyway, and else by small inferences.

    Args:
        client: Sends the inferences. It has to stay open until `aclose`.
        names: The models.
        answered_at: Returns when each model last answered a call, by `time.monotonic`.
    """

    def __init__(
        self, client: AsyncLycheeClient, names: Sequence[str], answered_at: Callable[[], Mapping[str, float]]
    ) -> None:
        self._client = client
        self._names = tuple(names)
        self._answered_at = answered_at
        self._began_at_s = time.monotonic()
        self._failures: dict[str, tuple[float, str]] = {}  # when, and why
        self._probes: dict[str, asyncio.Task[None]] = {}
        self._slowest_s = 0.0

    async def look(self, wait_s: float, max_age_s: float = PROOF_S) -> dict[str, str]:
        """Probe the models that have given no proof lately.

        Args:
            wait_s: How long to wait for answers. A model that is silent then is dead once its patience is over.
            max_age_s: How old an answer may be to be a proof.

        Returns:
            Why each model is dead that is, by its name.
        """
        now = time.monotonic()
        for name in self._names:
            if name not in self._probes and now - self._proved_at_s(name) >= max_age_s:
                self._probes[name] = asyncio.create_task(self._probe(name), name=f"probe-{name}")
        if self._probes:
            await asyncio.wait(list(self._probes.values()), timeout=wait_s)
        return {name: reason for name in self._names if (reason := self._find_reason(name)) is not None}

    async def aclose(self) -> None:
        """Forget the probes that are under way."""
        for probe in list(self._probes.values()):
            probe.cancel()
            with suppress(asyncio.CancelledError):
                await probe

    def _proved_at_s(self, name: str) -> float:
        return max(self._client.answered_at.get(name, 0.0), self._answered_at().get(name, 0.0))

    def _find_reason(self, name: str) -> str | None:
        proved_at_s = self._proved_at_s(name)
        failed_at_s, reason = self._failures.get(name, (0.0, ""))
        if failed_at_s > proved_at_s:
            return reason
        silent_s = time.monotonic() - max(proved_at_s, self._began_at_s)
        if silent_s >= max(SILENCE_S, _SLOWNESS * self._slowest_s):
            return f"no answer for {silent_s:.0f} s"
        return None

    async def _probe(self, name: str) -> None:
        began_at_s = time.monotonic()
        try:
            await self._client.probe(name, PROBE_TIMEOUT_S)
        except _BUSY:
            pass
        except LycheeError as error:
            self._failures[name] = (time.monotonic(), str(error))
        else:
            self._slowest_s = max(self._slowest_s, time.monotonic() - began_at_s)
        finally:
            del self._probes[name]
