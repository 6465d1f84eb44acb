"""How the embedding cache is used, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from lychee_client import CacheStatistics
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lychee_server.gateway.metric_families import PREFIX


class CountingCache(Protocol):
    """An embedding cache that tells how it is used."""

    def statistics(self) -> CacheStatistics:
        """Return how the cache is used."""
        ...


class CacheCollector(Collector):
    """Asks the cache when Prometheus asks us. All models of a gateway share one cache."""

    def __init__(self, cache: CountingCache) -> None:
        self._cache = cache

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        statistics = self._cache.statistics()
        for name, text in (
            ("hits", "Embeddings that the cache had"),
            ("misses", "Embeddings that it had not"),
            ("evictions", "Embeddings that made room for others"),
            ("failures", "Times that the cache could not be asked"),
        ):
            counter = CounterMetricFamily(f"{PREFIX}_embedding_cache_{name}", text, labels=("backend",))
            counter.add_metric((statistics.backend,), getattr(statistics, name))
            yield counter
        for name, text in (
            ("entries", "Embeddings in the cache"),
            ("bytes", "Size of the cache"),
            ("max_bytes", "Size that the cache may have"),
        ):
            value = getattr(statistics, name)
            if value is not None:  # a Redis is not ours alone
                gauge = GaugeMetricFamily(f"{PREFIX}_embedding_cache_{name}", text, labels=("backend",))
                gauge.add_metric((statistics.backend,), value)
                yield gauge
