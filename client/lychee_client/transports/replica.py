"""What is known about one of several servers that are the same, and how long their answers usually take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from lychee_client.transports.addresses import Address
from lychee_client.transports.base import InferRequest, JsonRequest, Request, Transport

ReplicaState: TypeAlias = Literal["new", "live", "not ready", "lost", "silent"]

SLOW: Final = 2.0  # what takes up to so many times as long as with the fastest replica counts as equal
MAX_SLOWNESS: Final = 16.0
FORGET_S: Final = 2.0  # after so long one new measurement counts more than all old ones
LACKS_S: Final = 5.0
FIRST_PROBE_S: Final = 0.1
MAX_PROBE_S: Final = 2.0
LEAST_LIMIT_S: Final = 0.2
UNKNOWN_LIMIT_S: Final = 2.0
# The first that has members is chosen from. A lost one fails at once, and a silent one may never.
_ORDER: Final[tuple[ReplicaState, ...]] = ("live", "not ready", "new", "lost", "silent")
_SIZE_STEP: Final = 4096
_MAX_KINDS: Final = 1000

Kind: TypeAlias = tuple[str, int]


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """One of several servers that are the same.

    Attributes:
        address: Its address, "IP:PORT", or as the URL has it.
        state: "live" takes requests, and the others are left out as long as one is live: "new" has not answered yet,
            "not ready" refuses, "lost" has no connection, and "silent" has one and does not answer.
        reason: Why it is left out; empty where it is not.
        requests: How many requests it was sent.
        running: How many of them it has not answered.
        latency_ms: How long its answers take, recent ones above all; None before the first.
    """

    address: str
    state: ReplicaState
    reason: str = ""
    requests: int = 0
    running: int = 0
    latency_ms: float | None = None


def kind_of(request: Request) -> Kind:
    """Return name and size class of a request: those of the same kind take about as long."""
    if isinstance(request, InferRequest):
        return request.model_name, (sum(tensor.nbytes for tensor in request.inputs.values()) // _SIZE_STEP).bit_length()
    if isinstance(request, JsonRequest):
        return request.path, (len(request.body or b"") // _SIZE_STEP).bit_length()
    return request.action, 0


class UsualTimes:
    """How long each kind of request usually takes, with all replicas together."""

    def __init__(self) -> None:
        self._seen: dict[Kind, tuple[int, float, float, float]] = {}

    def note(self, kind: Kind, took_s: float, now_s: float) -> None:
        """Take the time of one answer."""
        count, mean_s, deviation_s, _ = self._seen.get(kind, (0, took_s, took_s / 2, now_s))
        share = max(0.1, 1 / (count + 1))
        deviation_s += share * (abs(took_s - mean_s) - deviation_s) if count else 0.0
        if len(self._seen) >= _MAX_KINDS:
            self._seen.clear()
        self._seen[kind] = count + 1, mean_s + share * (took_s - mean_s), deviation_s, now_s

    def mean_s(self, kind: Kind) -> float | None:
        """Return the mean of the recent answers; None before the first."""
        seen = self._seen.get(kind)
        return None if seen is None else max(seen[1], 1e-6)

    def limit_s(self, kind: Kind) -> float:
        """Return after how long a request takes clearly longer than usual."""
        seen = self._seen.get(kind)
        return UNKNOWN_LIMIT_S if seen is None else max(LEAST_LIMIT_S, 4 * (seen[1] + 2 * seen[2]))

    def answered_at_s(self, kind: Kind) -> float:
        """Return when such a request was last answered."""
        seen = self._seen.get(kind)
        return -math.inf if seen is None else seen[3]


class Replica:
    """One of the servers. Whoever uses it has to hold the lock of them all.

    Attributes:
        address: Where it is.
        transport: Sends requests to it.
        state: See ReplicaStatus.
        reason: See ReplicaStatus.
        flying: The attempts that it has not answered, oldest first: kind and beginning.
        requests: How many requests it was sent.
        answered_at_s: When it last answered anything.
        refused_at_s: When it last had no room.
        measured_at_s: When its speed was last measured.
        measured_after: How many requests all replicas had had then.
        probe_began_at_s: Since when it is being asked whether it is ready; None while it is not.
        probe_due_at_s: When it is to be asked next, if it is not live.
    """

    def __init__(self, address: Address, transport: Transport, now_s: float) -> None:
        self.address = address
        self.transport = transport
        self.state: ReplicaState = "new"
        self.reason = "it has not answered yet"
        self.flying: dict[Any, tuple[Kind, float]] = {}
        self.requests = 0
        self.answered_at_s = self.refused_at_s = -math.inf
        self.measured_at_s = now_s
        self.measured_after = 0
        self.probe_began_at_s: float | None = None
        self.probe_due_at_s = now_s
        self._well_since_s = now_s
        self._failed_probes = 0
        self._slowness: float | None = None
        self._latency_s: float | None = None
        self._lacks: dict[tuple[str, str], float] = {}

    @property
    def order(self) -> int:
        """How far down the replica stands among those to choose from."""
        return _ORDER.index(self.state)

    @property
    def is_gone(self) -> bool:
        """Whether it answers nothing."""
        return self.state in ("lost", "silent")

    def status(self) -> ReplicaStatus:
        """Return what a user may know."""
        latency_ms = None if self._latency_s is None else 1e3 * self._latency_s
        return ReplicaStatus(str(self.address), self.state, self.reason, self.requests, len(self.flying), latency_ms)

    def recover(self, now_s: float) -> None:
        """Take it in: it has answered."""
        if self.state != "live":
            if self.state != "not ready":
                self._well_since_s = now_s  # what it did not answer in time says nothing about its speed now
            if self.state == "lost":
                self._slowness = None  # another process
            self.state, self.reason = "live", ""
            self._lacks.clear()
        self._failed_probes = 0

    def leave_out(self, state: ReplicaState, reason: str, now_s: float, *, at_once: bool = False) -> None:
        """Leave it out until it has answered a probe: now, or after a time that grows with every failure."""
        self.state, self.reason = state, reason
        pause_s = 0.0 if at_once else min(MAX_PROBE_S, FIRST_PROBE_S * 2.0**self._failed_probes)
        self.probe_due_at_s = now_s + pause_s
        self._failed_probes = min(self._failed_probes + (not at_once), 8)

    def measure(self, took_s: float, usual_s: float | None, now_s: float, after: int) -> None:
        """Take the time of one answer, if the request began when the replica was well."""
        if now_s - took_s < self._well_since_s:
            return
        share = max(0.2, 1 - math.exp((self.measured_at_s - now_s) / FORGET_S))
        self._latency_s = took_s if self._latency_s is None else self._latency_s + share * (took_s - self._latency_s)
        if usual_s is not None:
            slowness = min(MAX_SLOWNESS, took_s / usual_s)
            before = slowness if self._slowness is None else self._slowness
            self._slowness = before + share * (slowness - before)
        self.measured_at_s, self.measured_after = now_s, after

    def slowness(self, usual: UsualTimes, now_s: float) -> float | None:
        """Return how long it takes as a multiple of the usual; what it has not answered counts too. None: unknown."""
        for kind, began_at_s in self.flying.values():
            mean_s = usual.mean_s(kind)
            if mean_s is not None and self.state == "live":
                return max(self._slowness or 0.0, min(MAX_SLOWNESS, (now_s - began_at_s) / mean_s))
            break
        return self._slowness

    def lack(self, model: tuple[str, str], now_s: float) -> None:
        """Remember for a while that it does not serve a model."""
        self._lacks[model] = now_s + LACKS_S

    def lacks(self, model: tuple[str, str] | None, now_s: float) -> bool:
        """Say whether it does not serve a model."""
        return model is not None and self._lacks.get(model, -math.inf) > now_s
