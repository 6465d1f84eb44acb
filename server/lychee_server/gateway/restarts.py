"""How often the supervisor started a process again, among the gateway's metrics."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final

from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from lychee_server.state import read_state_file

__all__ = ["RestartsCollector"]

GATEWAY: Final = "gateway"


class RestartsCollector(Collector):
    """Reads the state file of `lychee load`, if that is what runs this gateway."""

    def collect(self) -> Iterable[Metric]:
        """See Collector."""
        known = read_state_file()
        if known is None or known.gateway is None or known.gateway.pid != os.getpid():
            return
        counter = CounterMetricFamily("lychee_restarts", "Restarts of a process by its supervisor", labels=("process",))
        for name in (*(triton.process_name for triton in known.tritons), GATEWAY):
            restarts = known.restarts.get(name)
            counter.add_metric((name,), 0 if restarts is None else restarts.count)
        yield counter
