"""What the gateway counts, for Prometheus and for the page's status tab."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from lychee_server.gateway.cache_metrics import CacheCollector, CountingCache
from lychee_server.gateway.metric_families import (
    CUSTOM_POLICY,
    IGNORED,
    METHODS,
    MODALITIES,
    NO_MODEL,
    NONE,
    ONLY_MODEL,
    OTHER,
    PREFIX,
    REASONS,
    MetricFamilies,
)
from lychee_server.gateway.model_metrics import ModelMetrics
from lychee_server.gateway.replica_metrics import ReplicaCollector

__all__ = ["CUSTOM_POLICY", "NO_MODEL", "ONLY_MODEL", "PREFIX", "Metrics"]


class Metrics:
    """The metrics of one gateway, in a registry of their own; safe to use from several threads.

    Attributes:
        registry: Of all metrics.
        in_flight: HTTP requests that are being answered.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._cache: CountingCache | None = None
        self._replicas = ReplicaCollector()
        self._began_at_s = time.monotonic()
        self._families = MetricFamilies(self.registry)
        self._models: dict[str, ModelMetrics] = {}
        self.in_flight = self._families.in_flight
        for reason in REASONS:
            self._families.rejected.labels(reason, NO_MODEL)
        for what in IGNORED:
            self._families.ignored.labels(what)
        self.registry.register(self._replicas)
        ProcessCollector(namespace=PREFIX, registry=self.registry)

    def of(self, model: str = ONLY_MODEL) -> ModelMetrics:
        """Return the metrics of a model, by its name in the file of the models."""
        if model not in self._models:
            self._models[model] = ModelMetrics(model, self._families, self._replicas)
        return self._models[model]

    def observe_request(
        self,
        route: str,
        status: int,
        modality: str | None,
        seconds: float,
        *,
        method: str = "POST",
        model: str = NO_MODEL,
    ) -> None:
        """Count a request.

        Args:
            route: The route's template, such as "/v1/rerank", never the path that was sent.
            status: The HTTP status of the answer.
            modality: What a call's documents are: "text", "image", "image_text" or "mixed"; None where it is no call.
            seconds: How long the request took, as wall time.
            method: The HTTP method.
            model: The name of the model that it was about.
        """
        method = method if method in METHODS else OTHER
        kind = NONE if modality is None else modality if modality in MODALITIES else OTHER
        self._families.requests.labels(route, method, str(status), kind, model).inc()
        self._families.latency.labels(route, model).observe(seconds)
        if modality is not None and model in self._models:
            self._models[model].recent.add(seconds)

    def reject(self, reason: str) -> None:
        """Count what was refused before it was about a model, by one of REASONS."""
        assert reason in REASONS, reason
        self._families.rejected.labels(reason, NO_MODEL).inc()

    def ignore(self, *, field: bool, key: bool, model: bool) -> None:
        """Count what one call held that is not known: fields, keys of query or documents, the name of a model."""
        for what, is_there in zip(IGNORED, (field, key, model), strict=True):
            self._families.ignored.labels(what).inc(is_there)

    def watch_cache(self, cache: CountingCache) -> None:
        """Show how the embedding cache is used, whenever the metrics are read."""
        self._cache = cache
        self.registry.register(CacheCollector(cache))

    def note_queues(self) -> None:
        """Remember how many calls of each model run and wait at this moment."""
        for model in self._models.values():
            model.note_queue()

    def stop(self) -> None:
        """Say that no model takes calls any more."""
        for model in self._models.values():
            model.set_ready(False)

    @property
    def calls_in_flight(self) -> int:
        """Calls of all models that run or wait."""
        return sum(model.calls_in_flight for model in self._models.values())

    def render(self) -> tuple[bytes, str]:
        """Return the metrics in Prometheus' text format, and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_PLAIN_0_0_4

    def snapshot(self, model: str = ONLY_MODEL) -> dict[str, Any]:
        """Return what the status tab shows of one model: see ModelMetrics.snapshot; `cache` is None without one."""
        return {
            "uptime_s": time.monotonic() - self._began_at_s,
            **self.of(model).snapshot(),
            "cache": asdict(self._cache.statistics()) if self._cache else None,
        }
