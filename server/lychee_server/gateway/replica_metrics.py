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
    """Asks when Prometheus asks us. Of a model with a single address of Triton there is nothing to tell.

    Attributes:
        watched: What spreads the requests of each model, by its name.
    """

    def __init__(self) -> None:
        self.watched: dict[str, Spreading] = {}

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        gauge = GaugeMetricFamily(f"{PREFIX}_replicas", "Addresses of Triton by state", labels=("state", "model"))
        again = CounterMetricFamily(
            f"{PREFIX}_requests_sent_again", "Requests that a second replica got, by reason", labels=("reason", "model")
        )
        for model, spreading in self.watched.items():
            replicas = spreading.replicas()
            if not replicas:
                continue
            counted = Counter(replica.state for replica in replicas)
            for state in get_args(ReplicaState):
                gauge.add_metric((state, model), counted[state])
            for reason, count in spreading.sent_again().items():
                again.add_metric((reason, model), count)
        yield from (family for family in (gauge, again) if family.samples)
