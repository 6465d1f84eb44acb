"""Which of several replicas gets a request, and which does not get any: rules without network and threads."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

from lychee_client.transports.addresses import Address
from lychee_client.transports.attempts import Attempt, Flight
from lychee_client.transports.base import Transport
from lychee_client.transports.replica import SLOW, Replica, UsualTimes
from lychee_client.transports.verdicts import Verdict, may_repeat

RECENT_S: Final = 0.1  # a replica that refused a moment ago is not asked to take what another one refused
PROBE_PATIENCE_S: Final = 0.1  # what waits for a replica that leaves a probe unanswered so long is sent elsewhere
PROBE_TIMEOUT_S: Final = 2.0  # then its connection is taken for dead
STUCK: Final = 5.0  # so many limits a request waits at a replica that is live, while others answer its kind
STUCK_S: Final = 1.0
HEDGE_SHARE: Final = 0.1  # of the requests may be sent twice, so that overload is never doubled
HEDGE_BURST: Final = 20.0
DOUBT_S: Final = 0.05
MEASURE_S: Final = 1.0  # a slow replica is measured again after so long, and so many requests
MEASURE_REQUESTS: Final = 20


class ReplicaSet:
    """The replicas of one server. Whoever uses it has to hold a lock.

    Args:
        make: Makes the transport for an address.

    Attributes:
        replicas: Those that requests are sent to.
        retired: Those whose address is gone, and that have not answered everything.
        usual: How long requests take.
        sent: How many requests there have been.
        hedged: How many were sent a second time because the first took long.
        moved: How many were sent a second time because the first failed.
    """

    def __init__(self, make: Callable[[Address], Transport]) -> None:
        self.replicas: list[Replica] = []
        self.retired: list[Replica] = []
        self.usual = UsualTimes()
        self.sent = self.hedged = self.moved = 0
        self._make = make
        self._hedges_left = HEDGE_BURST
        self._random = random.Random()

    @property
    def can_choose(self) -> bool:
        """Whether a request can be sent: one replica has answered, or all have failed to."""
        states = {replica.state for replica in self.replicas}
        return bool(states & {"live", "not ready"}) or bool(states and "new" not in states)

    def take_addresses(self, addresses: Sequence[Address], now_s: float) -> None:
        """Serve from these addresses, in the order of preference, and from no others, from now on."""
        known = {replica.address: replica for replica in self.replicas}
        self.retired += [replica for address, replica in known.items() if address not in addresses]
        self.replicas = [known.get(address) or Replica(address, self._make(address), now_s) for address in addresses]
        if len(self.replicas) == 1 and self.replicas[0].state == "new":  # there is nothing to choose
            self.replicas[0].recover(now_s)

    def choose(self, flight: Flight, now_s: float) -> Replica | None:
        """Return the replica for a request: that with the least to do, and one of the fast ones, as chance decides.

        One that is slow is taken for as much busier as it is slower. One that was tried is not chosen again, and where
        one was, none that has not the model or may never answer. Where only replicas that are gone may have the model,
        one that is there is asked, and says that it has not: the caller learns that there is another model now.
        """
        untried = [replica for replica in self.replicas if replica not in flight.tried]
        serving = [replica for replica in untried if not replica.lacks(flight.model, now_s)]
        if not flight.tried and all(replica.is_gone for replica in serving):
            serving = untried
        if flight.tried:
            untried = serving = [replica for replica in serving if replica.state != "silent"]
        candidates = _of_best_family(serving or untried)
        if not candidates:
            return None
        costs = self._costs(candidates, now_s)
        least = min(costs.values())
        return self._random.choice([replica for replica, cost in costs.items() if cost <= least])

    def begin(self, flight: Flight, now_s: float) -> Replica | None:
        """Count a new request; return a slow replica that shall get it too, so that its speed is known again."""
        self.sent += 1
        self._hedges_left = min(HEDGE_BURST, self._hedges_left + HEDGE_SHARE)
        if len(self.replicas) < 2 or not may_repeat(flight.request, None):
            return None
        for replica in self.replicas:
            due = now_s - replica.measured_at_s > MEASURE_S and self.sent - replica.measured_after >= MEASURE_REQUESTS
            if due and replica.state == "live" and not replica.flying and self._is_slow(replica, now_s):
                return replica if self._take_hedge() else None
        return None

    def choose_next(self, attempt: Attempt, verdict: Verdict, outcome: object, now_s: float) -> Replica | None:
        """Return the replica for a request that another one did not answer; None where that would not help."""
        flight = attempt.flight
        late = flight.ends_at_s is not None and now_s >= flight.ends_at_s
        if late or verdict is Verdict.FINAL or flight.failed_at is not None or not may_repeat(flight.request, outcome):
            return None
        if verdict is Verdict.FAILED:
            flight.failed_at = attempt.replica
        replica = self.choose(flight, now_s)
        if replica is None or (verdict is Verdict.OVERLOADED and now_s - replica.refused_at_s < RECENT_S):
            return None
        self.moved += 1
        return replica

    def find_silent(self, now_s: float) -> list[Replica]:
        """Return replicas that have answered nothing for clearly longer than usual, while others answer."""
        return [replica for replica in self.replicas if replica.state == "live" and self._is_silent(replica, now_s)]

    def is_doubtful(self, attempt: Attempt, now_s: float) -> bool:
        """Say whether a replica has to prove that it answers: its caller gave up later than usual, and has a choice."""
        replica, usual_s = attempt.replica, self.usual.mean_s(attempt.flight.kind)
        late = now_s - attempt.began_at_s > (DOUBT_S if usual_s is None else SLOW * usual_s)
        nothing_since = replica.state == "live" and replica.answered_at_s <= attempt.began_at_s
        return late and nothing_since and self._others_answer(replica, attempt.began_at_s)

    def find_hedges(self, now_s: float) -> list[tuple[Flight, Replica]]:
        """Return what is to be sent to a second replica now, and to which, as far as the share for that allows."""
        hedges = []
        for replica in self.replicas:
            asked_s = replica.probe_began_at_s
            frozen = replica.state == "silent" and asked_s is not None and now_s - asked_s >= PROBE_PATIENCE_S
            for attempt in replica.flying if frozen or replica.state == "live" else ():
                flight = attempt.flight
                if flight.done() or flight.is_hedged or not may_repeat(flight.request, None):
                    continue
                if not frozen and not self._is_stuck(attempt, now_s):
                    continue
                other = self.choose(flight, now_s)
                if other is not None and other.state == "live" and self._take_hedge():
                    self.hedged += 1
                    hedges.append((flight, other))
        return hedges

    def find_dead(self, now_s: float) -> list[Replica]:
        """Return replicas whose connection has left even a probe unanswered for too long."""
        return [
            replica
            for replica in self.replicas
            if replica.probe_began_at_s is not None and now_s - replica.probe_began_at_s >= PROBE_TIMEOUT_S
        ]

    def _costs(self, candidates: Sequence[Replica], now_s: float) -> dict[Replica, float]:
        slowness = {replica: replica.slowness(self.usual, now_s) for replica in candidates}
        best = min((value for value in slowness.values() if value is not None), default=1.0) or 1.0
        costs = {}
        for replica, value in slowness.items():
            ratio = 1.0 if value is None else value / best
            costs[replica] = (1 + len(replica.flying)) * (ratio if ratio > SLOW else 1.0)
        return costs

    def _is_slow(self, replica: Replica, now_s: float) -> bool:
        live = [other for other in self.replicas if other.state == "live"]
        return self._costs(live, now_s)[replica] > SLOW

    def _is_silent(self, replica: Replica, now_s: float) -> bool:
        for attempt, (kind, began_at_s) in replica.flying.items():
            late = now_s - began_at_s > self.usual.limit_s(kind) and replica.answered_at_s <= began_at_s
            if late and (attempt.measures or not attempt.flight.done()) and self._others_answer(replica, began_at_s):
                return True
        return False

    def _others_answer(self, replica: Replica, since_s: float) -> bool:
        return any(
            other is not replica and other.state == "live" and (not other.flying or other.answered_at_s > since_s)
            for other in self.replicas
        )

    def _is_stuck(self, attempt: Attempt, now_s: float) -> bool:
        kind = attempt.flight.kind
        late = now_s - attempt.began_at_s > max(STUCK_S, STUCK * self.usual.limit_s(kind))
        return late and self.usual.answered_at_s(kind) > attempt.began_at_s

    def _take_hedge(self) -> bool:
        if self._hedges_left < 1:
            return False
        self._hedges_left -= 1
        return True


def _of_best_family(replicas: Sequence[Replica]) -> list[Replica]:
    """Return those in the best state; where a host has addresses of IPv4 and IPv6, those of the one that comes first.

    Both are usually the same machines: where the first answers, the second is no other replica.
    """
    if not replicas:
        return []
    least = min(replica.order for replica in replicas)
    best = [replica for replica in replicas if replica.order == least]
    families: dict[str, bool] = {}
    for replica in best:
        families.setdefault(replica.address.target, replica.address.is_ipv6)
    return [replica for replica in best if families[replica.address.target] == replica.address.is_ipv6]
