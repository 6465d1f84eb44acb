"""Looks after replicas while they are used: asks those that are left out, and sees which are silent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Any, Final, Protocol

from lychee_client.transports.addresses import Address
from lychee_client.transports.attempts import Flight
from lychee_client.transports.base import JsonResponse, Request, Transport, TransportError
from lychee_client.transports.replica import Replica
from lychee_client.transports.replica_set import PROBE_TIMEOUT_S, ReplicaSet
from lychee_client.transports.statistics import MAX_WAIT_S, StatisticsSum
from lychee_client.transports.verdicts import Verdict, judge

TICK_S: Final = 0.05
DOZE_S: Final = 0.5
IDLE_S: Final = 30.0  # after so long without a request nobody is looked after


class _Launch(Protocol):
    def __call__(self, flight: Flight, replica: Replica) -> None: ...


class Care:
    """Has one thread, from the first request until none has come for a while. One replica alone needs none.

    Args:
        replicas: The replicas.
        lock: Guards them.
        probes: What a replica is asked: whoever answers the first with a status that is no answer gets the next.
        make: Makes a replica another transport.
        clock: Tells the seconds.
        has_thread: Whether it has a thread.

    Attributes:
        launch: Sends a request to one more replica.
        advance: Called after every answer to a probe.
        resolve: Called often, with the time.
    """

    def __init__(
        self,
        replicas: ReplicaSet,
        lock: threading.RLock,
        probes: Sequence[Request],
        make: Callable[[Address], Transport],
        clock: Callable[[], float],
        *,
        has_thread: bool,
    ) -> None:
        self.launch: _Launch
        self.advance: Callable[[], None]
        self.resolve: Callable[[float], None]
        self._set = replicas
        self._lock = lock
        self._probes = probes
        self._make = make
        self._clock = clock
        self._has_thread = has_thread
        self._running = False
        self._used_at_s = clock()
        self._sums: list[StatisticsSum] = []
        self._wake = threading.Event()
        self._ended = False

    def begin(self, now_s: float) -> None:
        """Look after the replicas: they are used."""
        with self._lock:
            self._used_at_s = now_s
            needed = self._has_thread and (len(self._set.replicas) > 1 or bool(self._set.retired))
            begin = needed and not self._running and not self._ended
            self._running = self._running or begin
        if begin:
            threading.Thread(target=self._run, name="lychee-replicas", daemon=True).start()
        elif not self._wake.is_set():
            self._wake.set()

    def end(self) -> None:
        """Look after nothing any more."""
        self._ended = True
        self._wake.set()

    def watch(self, total: StatisticsSum) -> None:
        """Bound how long a sum waits for a replica."""
        with self._lock:
            self._sums.append(total)

    def tick(self) -> None:
        """Look once."""
        now_s = self._clock()
        with self._lock:
            for replica in self._set.find_silent(now_s):
                replica.leave_out("silent", "it does not answer", now_s, at_once=True)
            dead = self._set.find_dead(now_s)
            probed = [replica for replica in self._set.replicas if self._is_due(replica, now_s)]
            for replica in probed:
                replica.probe_began_at_s = now_s
            hedges = self._set.find_hedges(now_s)
            unused = [replica for replica in self._set.retired if not replica.flying]
            self._set.retired = [replica for replica in self._set.retired if replica.flying]
            late = [total for total in self._sums if now_s - total.began_at_s >= MAX_WAIT_S]
            self._sums = [total for total in self._sums if not total.done() and total not in late]
        for total in late:
            total.finish()
        for replica in probed:
            self._probe(replica, replica.transport, 0)
        for flight, other in hedges:
            self.launch(flight, other)
        for replica in dead:
            self._reconnect(replica, now_s)
        for replica in unused:
            replica.transport.close()

    def _is_due(self, replica: Replica, now_s: float) -> bool:
        return replica.state != "live" and replica.probe_began_at_s is None and replica.probe_due_at_s <= now_s

    def _run(self) -> None:
        while True:
            self.tick()
            now_s = self._clock()
            with self._lock:
                flying = any(replica.flying for replica in (*self._set.replicas, *self._set.retired))
                busy = flying or self._sums or any(replica.state != "live" for replica in self._set.replicas)
                if self._ended or (now_s - self._used_at_s > IDLE_S and not flying):
                    self._running = False
                    return
            self.resolve(now_s)
            if busy:
                time.sleep(TICK_S)
            else:
                self._wake.clear()
                self._wake.wait(DOZE_S)

    def _probe(self, replica: Replica, transport: Transport, number: int) -> None:
        request = self._probes[number]
        transport.send(request, PROBE_TIMEOUT_S).add_done_callback(partial(self._hear, replica, transport, number))

    def _hear(self, replica: Replica, transport: Transport, number: int, future: Future[Any]) -> None:
        """Take the answer to a probe."""
        outcome = outcome_of(future)
        verdict = judge(self._probes[number], outcome)
        foreign = isinstance(outcome, JsonResponse) and verdict is Verdict.ANSWERED and outcome.status != 200
        if foreign and number + 1 < len(self._probes):
            self._probe(replica, transport, number + 1)
            return
        now_s = self._clock()
        with self._lock:
            if transport is not replica.transport:
                return
            replica.probe_began_at_s = None
            if verdict is not Verdict.LOST:
                replica.answered_at_s = now_s
            if verdict is Verdict.LOST:
                replica.leave_out("lost", reason_of(outcome), now_s)
            elif verdict in (Verdict.NOT_READY, Verdict.OVERLOADED):
                replica.leave_out("not ready", reason_of(outcome), now_s)
            else:  # whatever it said, it is there
                replica.recover(now_s)
        self.advance()

    def _reconnect(self, replica: Replica, now_s: float) -> None:
        """Give a replica another connection: a frozen process may never answer on the old one, nor a lost machine."""
        with self._lock:
            old, replica.transport = replica.transport, self._make(replica.address)
            replica.probe_began_at_s = None
            replica.leave_out("silent", "it does not answer", now_s)
        old.close()  # what waits there comes back as lost
        self.advance()


def outcome_of(future: Future[Any]) -> object:
    """Return what a future holds, be it an exception; None where it was given up."""
    try:
        return future.result(0)
    except CancelledError:
        return None
    except BaseException as error:
        return error


def reason_of(outcome: object) -> str:
    """Say why a replica is left out."""
    if isinstance(outcome, TransportError):
        status = outcome.response.status if outcome.response is not None else None
        return f"it answered {status}" if status is not None else outcome.details
    if isinstance(outcome, JsonResponse):
        return f"it answered {outcome.status}"
    return "it says that it is not ready" if isinstance(outcome, dict) else str(outcome or "it does not answer")
