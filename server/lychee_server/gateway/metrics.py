"""What the gateway counts, for Prometheus and for the page's status tab.

Labels have few values by construction: route templates instead of paths, methods and modalities from fixed sets, custom
policies under one name. So what a caller sends can never make the metrics grow.
"""

from __future__ import annotations

import time
from collections import Counter as CountOf
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final, Protocol

from lychee_client import POLICIES, CacheStatistics, LycheeError, RerankResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lychee_server.gateway.errors import find_fault
from lychee_server.gateway.limits import ConcurrencyLimit
from lychee_server.gateway.recent_calls import RecentCalls
from lychee_server.gateway.replica_metrics import ReplicaCollector, Spreading
from lychee_server.gateway.tracing.current import exemplar

PREFIX: Final = "lychee_gateway"
OPENMETRICS: Final = "application/openmetrics-text"
LATENCY_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
DOCUMENT_BUCKETS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
SCORE_BUCKETS: Final = tuple(step / 20 for step in range(1, 21))
REASONS: Final = ("busy", "too_large", "unauthorized", "invalid", "url_refused", "stopping", "foreign", "slow")
FAILURES: Final = ("invalid_input", "invalid_output", "model_failed")  # kinds of errors, see errors.py
IGNORED: Final = ("field", "key", "model")
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"})
MODALITIES: Final = frozenset({"text", "image", "image_text", "mixed"})
CUSTOM_POLICY: Final = "custom"
NONE: Final = "none"
OTHER: Final = "other"


class CountingCache(Protocol):
    """An embedding cache that tells how it is used."""

    def statistics(self) -> CacheStatistics:
        """Return how the cache is used."""
        ...


class Metrics:
    """The metrics of one gateway, in a registry of their own; safe to use from several threads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.recent = RecentCalls()
        self._began_at_s = time.monotonic()
        self._limit: ConcurrencyLimit | None = None
        self._cache: CountingCache | None = None
        self._make_request_metrics()
        self._make_call_metrics()
        self._make_state_metrics()
        ProcessCollector(namespace=PREFIX, registry=self.registry)

    def _make_request_metrics(self) -> None:
        self._requests = self._counter("requests", "HTTP requests", ("route", "method", "status", "modality"))
        self._latency = self._histogram(
            "request_duration_seconds", "Wall time of a request", LATENCY_BUCKETS_S, ("route",)
        )
        self._rejected = self._counter("rejected", "Calls and documents that were refused", ("reason",))
        for reason in REASONS:
            self._rejected.labels(reason)
        self._ignored = self._counter("ignored", "Calls with something unknown that was ignored", ("what",))
        for what in IGNORED:
            self._ignored.labels(what)
        self.in_flight = self._gauge("requests_in_flight", "HTTP requests that are being answered")

    def _make_call_metrics(self) -> None:
        self._stages = self._histogram(
            "rerank_stage_seconds", "Wall time of a stage; the stages overlap", LATENCY_BUCKETS_S, ("stage",)
        )
        self._documents = self._histogram("documents", "Documents per call", DOCUMENT_BUCKETS, ("route",))
        self._document_errors = self._counter("document_errors", "Documents that could not be ranked", ("reason",))
        for reason in FAILURES:
            self._document_errors.labels(reason)
        self._decisions = self._counter("decisions", "Results by decision", ("policy", "decision"))
        self._scores = self._histogram("relevance_score", "Scores of results", SCORE_BUCKETS)

    def _make_state_metrics(self) -> None:
        self._running = self._gauge("calls_running", "Calls that are being computed")
        self._waiting = self._gauge("calls_waiting", "Calls that wait for a slot")
        self._max_running = self._gauge("calls_running_limit", "Calls that may be computed at the same time")
        self._max_waiting = self._gauge("calls_waiting_limit", "Calls that may wait for a slot")
        self._ready = self._gauge("ready", "1 while the gateway is ready for calls")
        self._triton_up = self._gauge("triton_up", "1 while the Triton server answers")
        self._golden_passed = self._gauge("golden_passed", "1 while the golden pairs match, 0 before the first check")
        self._golden_error = self._gauge("golden_max_abs_error", "Largest error of the last golden check")
        self._build = self._gauge("build_info", "Always 1", ("version", "model_id", "revision"))

    def _counter(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(f"{PREFIX}_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(f"{PREFIX}_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()) -> Histogram:
        return Histogram(f"{PREFIX}_{name}", text, labels, registry=self.registry, buckets=buckets)

    def observe_request(
        self, route: str, status: int, modality: str | None, seconds: float, *, method: str = "POST"
    ) -> None:
        """Count a request.

        Args:
            route: The route's template, such as "/v1/rerank", never the path that was sent.
            status: The HTTP status of the answer.
            modality: What a call's documents are: "text", "image", "image_text" or "mixed"; None where it is no call.
            seconds: How long the request took, as wall time.
            method: The HTTP method.
        """
        method = method if method in METHODS else OTHER
        kind = NONE if modality is None else modality if modality in MODALITIES else OTHER
        self._requests.labels(route, method, str(status), kind).inc()
        self._latency.labels(route).observe(seconds, exemplar())
        if modality is not None:
            self.recent.add(seconds)

    def observe_rerank(
        self, route: str, response: RerankResponse, policy_name: str, *, documents: int | None = None
    ) -> None:
        """Count what a call answered.

        Args:
            route: The route's template, as in `observe_request`.
            response: The client's response.
            policy_name: The name of the policy that decided; every name but those of POLICIES counts as "custom".
            documents: How many the caller sent. None: as many as the response tells of.
        """
        count = len(response.results) + len(response.errors) if documents is None else documents
        self._documents.labels(route).observe(count)
        self.recent.add_documents(count)
        for failed in response.errors:
            self.fail_documents(failed.error)
        policy = policy_name if policy_name in POLICIES else CUSTOM_POLICY
        for decision, number in CountOf(result.decision for result in response.results).items():
            self._decisions.labels(policy, decision).inc(number)
        for result in response.results:
            self._scores.observe(result.relevance_score)
        timings = response.timings
        for stage, milliseconds in (
            ("total", timings.total_ms),
            ("preprocess", timings.preprocess_ms),
            ("encode_query", timings.encode_query_ms),
            ("score_documents", timings.score_documents_ms),
        ):
            self._stages.labels(stage).observe(milliseconds / 1e3)

    def fail_documents(self, error: LycheeError, count: int = 1) -> None:
        """Count documents that could not be ranked, by the kind of their error."""
        self._document_errors.labels(find_fault(error).kind).inc(count)

    def reject(self, reason: str) -> None:
        """Count a call or a document that was refused, by one of REASONS."""
        assert reason in REASONS, reason
        self._rejected.labels(reason).inc()

    def ignore(self, *, field: bool, key: bool, model: bool) -> None:
        """Count what one call held that is not known: fields, keys of query or documents, the name of a model."""
        for what, is_there in zip(IGNORED, (field, key, model), strict=True):
            self._ignored.labels(what).inc(is_there)

    def watch_limit(self, limit: ConcurrencyLimit) -> None:
        """Show how many calls run and wait, whenever the metrics are read."""
        self._limit = limit
        self._running.set_function(lambda: limit.running)
        self._waiting.set_function(lambda: limit.waiting)
        self._max_running.set(limit.max_running)
        self._max_waiting.set(limit.max_waiting)

    def note_queue(self) -> None:
        """Remember how many calls run and wait at this moment."""
        if self._limit is not None:
            self.recent.note_queue(self._limit.running, self._limit.waiting)

    def watch_cache(self, cache: CountingCache) -> None:
        """Show how the embedding cache is used, whenever the metrics are read."""
        self._cache = cache
        self.registry.register(_CacheCollector(cache))

    def watch_replicas(self, spreading: Spreading) -> None:
        """Show how many Tritons there are, whenever the metrics are read."""
        self.registry.register(ReplicaCollector(spreading))

    def set_model(self, version: str, model_id: str, revision: str) -> None:
        """Name the gateway's version and the model that is served now."""
        self._build.clear()
        self._build.labels(version, model_id, revision).set(1)

    def set_ready(self, ready: bool) -> None:
        """Say whether the gateway takes calls."""
        self._ready.set(ready)

    def set_triton_up(self, up: bool) -> None:
        """Say whether the Triton server answers."""
        self._triton_up.set(up)

    def set_golden(self, passed: bool, max_abs_error: float) -> None:
        """Note the outcome of a golden check."""
        self._golden_passed.set(passed)
        self._golden_error.set(max_abs_error)

    @property
    def calls_in_flight(self) -> int:
        """Calls that run or wait."""
        return self._limit.running + self._limit.waiting if self._limit else 0

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return the metrics and their content type: as OpenMetrics, with exemplars, to those who accept it.

        Args:
            accept: The header of the request; to all others, Prometheus' text format.
        """
        if OPENMETRICS in accept:
            encode, content_type = choose_encoder(accept)
            return encode(self.registry), content_type
        return generate_latest(self.registry), CONTENT_TYPE_PLAIN_0_0_4

    def snapshot(self) -> dict[str, Any]:
        """Return what the status tab shows; plain numbers and strings.

        `totals` counts since the start, `rates` and `latency_ms` the last minute, `rejected` by reason; `calls` is now.
        `cache` is None without one.
        """
        recent = self.recent.summary()
        return {
            "uptime_s": time.monotonic() - self._began_at_s,
            "totals": {
                "requests": int(_total(self._requests)),
                "documents": int(_total(self._documents, "_sum")),
                "document_errors": int(_total(self._document_errors)),
            },
            "rates": {"calls_per_s": recent.calls_per_s, "documents_per_s": recent.documents_per_s},
            "latency_ms": {"p50": recent.p50_ms, "p99": recent.p99_ms},
            "rejected": {
                sample.labels["reason"]: int(sample.value)
                for metric in self._rejected.collect()
                for sample in metric.samples
                if sample.name.endswith("_total")
            },
            "calls": {
                "running": self._limit.running if self._limit else 0,
                "waiting": self._limit.waiting if self._limit else 0,
                "max_running": self._limit.max_running if self._limit else 0,
                "max_waiting": self._limit.max_waiting if self._limit else 0,
            },
            "cache": asdict(self._cache.statistics()) if self._cache else None,
        }


class _CacheCollector(Collector):
    """Ask the cache when Prometheus asks us."""

    def __init__(self, cache: CountingCache) -> None:
        self._cache = cache

    def collect(self) -> Iterator[Metric]:
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


def _total(collector: Collector, suffix: str = "_total") -> float:
    """Return the sum over all labels."""
    return sum(
        sample.value for metric in collector.collect() for sample in metric.samples if sample.name.endswith(suffix)
    )
