"""One transport made of several: the replicas of a server, some of which may be slow, frozen, gone or different."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Final

from lychee_client._errors import ConnectionFailedError
from lychee_client.transports.addresses import Address, Resolver
from lychee_client.transports.attempts import Attempt, Flight
from lychee_client.transports.base import ControlRequest, Request, Transport, TransportError
from lychee_client.transports.care import Care, outcome_of, reason_of
from lychee_client.transports.replica import Replica, ReplicaStatus
from lychee_client.transports.replica_set import ReplicaSet
from lychee_client.transports.statistics import StatisticsSum
from lychee_client.transports.verdicts import Verdict, judge

_LEAST_TIMEOUT_S: Final = 1e-3
_QUESTION_S: Final = 2.0


class Replicas:
    """Spreads requests over all addresses of a server. See Transport, and docs/reliability.md for its rules.

    "live", "ready" and "model_ready" are true where they are for one of the replicas, "statistics" is the sum of those
    that answer, and any other question is answered by one of them.

    Args:
        targets: What the URL names, each "HOST:PORT".
        make: Makes the transport for an address; it does no network before its first request.
        probes: What a replica is asked that is left out; see Care.
        clock: Tells the seconds.
        has_thread: Whether a thread looks after the replicas while they are used; tests call `care.tick` themselves.

    Attributes:
        care: Looks after the replicas.
    """

    def __init__(
        self,
        targets: Sequence[str],
        make: Callable[[Address], Transport],
        probes: Sequence[Request] = (ControlRequest("ready"),),
        *,
        clock: Callable[[], float] = time.monotonic,
        has_thread: bool = True,
    ) -> None:
        self._clock = clock
        self._lock = threading.RLock()  # never held while something is sent or settled
        self._set = ReplicaSet(make)
        self._waiting: list[Flight] = []
        self._closed = False
        self._resolver = Resolver(targets, self.take_addresses)
        self.care = Care(self._set, self._lock, probes, make, clock, has_thread=has_thread)
        self.care.launch, self.care.advance, self.care.resolve = self._launch, self._advance, self._resolver.refresh
        fixed = self._resolver.fixed()
        if len(fixed) == len(targets):
            self.take_addresses(fixed)

    def statuses(self) -> tuple[ReplicaStatus, ...]:
        """Return what is known about each replica."""
        with self._lock:
            return tuple(replica.status() for replica in self._set.replicas)

    def sent_again(self) -> dict[str, int]:
        """Return how many requests a second replica got, because the first took long ("slow") or failed ("failed")."""
        return {"slow": self._set.hedged, "failed": self._set.moved}

    def send(self, request: Request, timeout_s: float | None) -> Future[Any]:
        """See Transport."""
        now_s = self._clock()
        self._resolver.refresh(now_s)
        if isinstance(request, ControlRequest) and request.action == "statistics":
            total = self._sum(request, timeout_s, now_s)
            if total is not None:
                return total
        flight = Flight(request, None if timeout_s is None else now_s + timeout_s)
        with self._lock:
            closed = self._closed
            waits = not closed and not self._set.can_choose
            if waits:
                self._waiting.append(flight)
        if closed:
            flight.settle(TransportError(ConnectionFailedError, None, "connection closed", request.request_id or ""))
        elif not waits:
            self._dispatch(flight)
        self.care.begin(now_s)
        return flight

    def close(self, farewell: Request | None = None) -> None:
        """See Transport."""
        with self._lock:
            self._closed = True
            replicas = [*self._set.replicas, *self._set.retired]
            flights = [*self._waiting, *(attempt.flight for replica in replicas for attempt in replica.flying)]
            self._waiting.clear()
        self.care.end()
        for flight in flights:
            flight.cancel()
        for replica in replicas:
            replica.transport.close(farewell)

    def take_addresses(self, addresses: Sequence[Address]) -> None:
        """Serve from these addresses, in the order of preference, and from no others, from now on."""
        now_s = self._clock()
        with self._lock:
            if self._closed:
                return
            self._set.take_addresses(addresses, now_s)
            waiting = bool(self._waiting)
        if waiting:
            self.care.begin(now_s)
        self._advance()

    def _sum(self, request: Request, timeout_s: float | None, now_s: float) -> StatisticsSum | None:
        with self._lock:
            several = len(self._set.replicas) > 1 and not self._closed
            asked = [r.transport for r in self._set.replicas if r.state in ("live", "not ready")] if several else []
        if not asked:
            return None
        total = StatisticsSum([transport.send(request, timeout_s) for transport in asked], now_s)
        self.care.watch(total)
        self.care.begin(now_s)
        return total

    def _advance(self) -> None:
        """Send what has waited for a first replica."""
        with self._lock:
            if not self._set.can_choose:
                return
            waiting, self._waiting = self._waiting, []
        for flight in waiting:
            if not flight.done():
                self._dispatch(flight)

    def _dispatch(self, flight: Flight) -> None:
        now_s = self._clock()
        with self._lock:
            measured = self._set.begin(flight, now_s)
            replica = self._set.choose(flight, now_s)
        assert replica is not None, "nothing has been tried yet"
        self._launch(flight, replica)
        if measured is not None and measured is not replica:
            self._launch(flight, measured, measures=True)

    def _launch(self, flight: Flight, replica: Replica, *, measures: bool = False) -> None:
        now_s = self._clock()
        attempt = Attempt(flight, replica, now_s, measures=measures)
        with self._lock:
            if not measures:
                flight.tried.add(replica)
            flight.attempts[attempt] = None
            replica.flying[attempt] = flight.kind, now_s
            replica.requests += 1
        timeout_s = None if flight.ends_at_s is None else max(_LEAST_TIMEOUT_S, flight.ends_at_s - now_s)
        future = attempt.transport.send(flight.request, timeout_s)
        with self._lock:
            if attempt in flight.attempts:
                flight.attempts[attempt] = future
        future.add_done_callback(partial(self._land, attempt))
        if flight.cancelled() or (flight.done() and not measures):
            future.cancel()

    def _land(self, attempt: Attempt, future: Future[Any]) -> None:
        outcome = outcome_of(future)
        flight, replica, now_s = attempt.flight, attempt.replica, self._clock()
        verdict = judge(flight.request, outcome)
        with self._lock:
            replica.flying.pop(attempt, None)
            flight.attempts.pop(attempt, None)
            settled = flight.done()
            if outcome is not None:
                self._learn(attempt, verdict, outcome, now_s)
            elif flight.cancelled() and self._set.is_doubtful(attempt, now_s):
                replica.leave_out("silent", "a caller waited in vain", now_s, at_once=True)
        if verdict is Verdict.LOST and not settled:
            self._resolver.refresh(now_s, soon=True)
        if settled or (attempt.measures and verdict is not Verdict.ANSWERED):
            return
        if verdict is Verdict.ANSWERED:
            flight.settle(outcome)
        elif verdict is Verdict.UNKNOWN and flight.model is not None and len(self._set.replicas) > 1:
            self._ask_for_model(attempt, outcome)
        else:
            self._move(attempt, verdict, outcome)

    def _learn(self, attempt: Attempt, verdict: Verdict, outcome: object, now_s: float) -> None:
        """Take what an outcome says about its replica."""
        flight, replica = attempt.flight, attempt.replica
        if verdict is Verdict.LOST:
            if attempt.transport is replica.transport and replica.state != "lost":
                replica.leave_out("lost", reason_of(outcome), now_s)
            return
        replica.answered_at_s = now_s
        if replica.state in ("new", "lost", "silent"):
            replica.recover(now_s)
        if verdict is Verdict.NOT_READY:
            replica.leave_out("not ready", reason_of(outcome), now_s, at_once=True)
        elif verdict is Verdict.OVERLOADED:
            replica.refused_at_s = now_s
        elif verdict is Verdict.ANSWERED:
            took_s = now_s - attempt.began_at_s
            replica.measure(took_s, self._set.usual.mean_s(flight.kind), now_s, self._set.sent)
            if not flight.done():
                self._set.usual.note(flight.kind, took_s, now_s)
            if flight.failed_at is not None and flight.model is not None:
                flight.failed_at.lack(flight.model, now_s)  # the request was not to blame

    def _ask_for_model(self, attempt: Attempt, outcome: object) -> None:
        """Find out whether a replica refused a request because it has no such model."""
        model = attempt.flight.model
        assert model is not None
        name, version = model
        question = ControlRequest("model_ready", name, model_version=version)

        def take(future: Future[Any]) -> None:
            answer = outcome_of(future)
            lacks = not isinstance(answer, dict) or not answer.get("ready")
            if lacks:
                with self._lock:
                    attempt.replica.lack(model, self._clock())
            self._move(attempt, Verdict.UNKNOWN if lacks else Verdict.FINAL, outcome)

        attempt.transport.send(question, _QUESTION_S).add_done_callback(take)

    def _move(self, attempt: Attempt, verdict: Verdict, outcome: object) -> None:
        """Send a request that failed to another replica, where that may help; else let the caller have the failure."""
        flight, now_s = attempt.flight, self._clock()
        with self._lock:
            if flight.is_lost:
                flight.failure, flight.is_lost = outcome, verdict is Verdict.LOST
            if any(not other.measures for other in flight.attempts):
                return  # another replica may still answer
            replica = None if self._closed else self._set.choose_next(attempt, verdict, outcome, now_s)
        if replica is not None:
            self._launch(flight, replica)
        elif flight.failure is None:
            given_up = f"{attempt.replica.address} did not answer, and the connection was given up"
            flight.settle(TransportError(ConnectionFailedError, None, given_up, flight.request.request_id or ""))
        else:
            flight.settle(flight.failure)
