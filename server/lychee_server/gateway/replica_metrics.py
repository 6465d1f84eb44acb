"""How many Tritons there are to choose from, and how often one was asked in another's place, for Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Protocol, get_args

from lychee_client import ReplicaStatus
from lychee_client.transports.replica import ReplicaState
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

PREFIX: Final = "lychee_gateway_triton"


class Spreading(Protocol):
    """What spreads requests over replicas."""

    def replicas(self) -> Sequence[ReplicaStatus]:
        """Return the replicas; none where there is a single address."""
        ...

    def sent_again(self) -> Mapping[str, int]:
        """Return how many requests were sent to a second replica, by reason."""
        ...


class ReplicaCollector(Collector):
    """Asks when Prometheus asks us. With a single address of Triton there is nothing to tell."""

    def __init__(self, spreading: Spreading) -> None:
        self._spreading = spreading

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        replicas = self._spreading.replicas()
        if not replicas:
            return
        counted = Counter(replica.state for replica in replicas)
        gauge = GaugeMetricFamily(f"{PREFIX}_replicas", "Addresses of Triton by state", labels=("state",))
        for state in get_args(ReplicaState):
            gauge.add_metric((state,), counted[state])
        yield gauge
        again = CounterMetricFamily(
            f"{PREFIX}_requests_sent_again", "Requests that a second replica got, by reason", labels=("reason",)
        )
        for reason, count in self._spreading.sent_again().items():
            again.add_metric((reason,), count)
        yield again
