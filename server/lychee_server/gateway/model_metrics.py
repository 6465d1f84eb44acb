"""What the gateway counts of one model."""

from __future__ import annotations

from collections import Counter as CountOf
from typing import Any

from lychee_client import POLICIES, LycheeError, RerankResponse
from prometheus_client.registry import Collector

from lychee_server.gateway.errors import find_fault
from lychee_server.gateway.limits import ConcurrencyLimit
from lychee_server.gateway.metric_families import (
    CUSTOM_POLICY,
    FAILURES,
    MODEL_REASONS,
    NO_MODEL,
    MetricFamilies,
)
from lychee_server.gateway.recent_calls import RecentCalls
from lychee_server.gateway.replica_metrics import ReplicaCollector, Spreading


class ModelMetrics:
    """The part of a gateway's metrics that is about one of its models; safe to use from several threads.

    Args:
        model: The value of the label `model`.
        families: The metrics of the gateway.
        replicas: Tells of the Tritons of every model.

    Attributes:
        recent: The calls of the last minutes.
    """

    def __init__(self, model: str, families: MetricFamilies, replicas: ReplicaCollector) -> None:
        self.recent = RecentCalls()
        self._model = model
        self._families = families
        self._replicas = replicas
        self._limit: ConcurrencyLimit | None = None
        self._build: tuple[str, ...] | None = None
        for reason in MODEL_REASONS:
            families.rejected.labels(reason, model)
        for reason in FAILURES:
            families.document_errors.labels(reason, model)
        self._ready = families.ready.labels(model)
        self._triton_up = families.triton_up.labels(model)
        self._golden_passed = families.golden_passed.labels(model)
        self._golden_error = families.golden_error.labels(model)
        self._scores = families.scores.labels(model)

    def observe_rerank(
        self, route: str, response: RerankResponse, policy_name: str, *, documents: int | None = None
    ) -> None:
        """Count what a call answered.

        Args:
            route: The route's template, as in `Metrics.observe_request`.
            response: The client's response.
            policy_name: The name of the policy that decided; every name but those of POLICIES counts as "custom".
            documents: How many the caller sent. None: as many as the response tells of.
        """
        count = len(response.results) + len(response.errors) if documents is None else documents
        self._families.documents.labels(route, self._model).observe(count)
        self.recent.add_documents(count)
        for failed in response.errors:
            self.fail_documents(failed.error)
        policy = policy_name if policy_name in POLICIES else CUSTOM_POLICY
        for decision, number in CountOf(result.decision for result in response.results).items():
            self._families.decisions.labels(policy, decision, self._model).inc(number)
        for result in response.results:
            self._scores.observe(result.relevance_score)
        timings = response.timings
        for stage, milliseconds in (
            ("total", timings.total_ms),
            ("preprocess", timings.preprocess_ms),
            ("encode_query", timings.encode_query_ms),
            ("score_documents", timings.score_documents_ms),
        ):
            self._families.stages.labels(stage, self._model).observe(milliseconds / 1e3)

    def fail_documents(self, error: LycheeError, count: int = 1) -> None:
        """Count documents that could not be ranked, by the kind of their error."""
        self._families.document_errors.labels(find_fault(error).kind, self._model).inc(count)

    def reject(self, reason: str) -> None:
        """Count a call or a document that was refused, by one of MODEL_REASONS."""
        assert reason in MODEL_REASONS, reason
        self._families.rejected.labels(reason, self._model).inc()

    def watch_limit(self, limit: ConcurrencyLimit) -> None:
        """Show how many calls run and wait, whenever the metrics are read."""
        self._limit = limit
        families, model = self._families, self._model
        families.running.labels(model).set_function(lambda: limit.running)
        families.waiting.labels(model).set_function(lambda: limit.waiting)
        families.max_running.labels(model).set(limit.max_running)
        families.max_waiting.labels(model).set(limit.max_waiting)

    def note_queue(self) -> None:
        """Remember how many calls run and wait at this moment."""
        if self._limit is not None:
            self.recent.note_queue(self._limit.running, self._limit.waiting)

    def watch_replicas(self, spreading: Spreading) -> None:
        """Show how many Tritons there are, whenever the metrics are read."""
        self._replicas.watched[self._model] = spreading

    def set_model(self, version: str, model_id: str, revision: str) -> None:
        """Name the gateway's version and the model that is served now."""
        named = (version, model_id, revision, self._model)
        if self._build is not None and self._build != named:
            self._families.build.remove(*self._build)
        self._families.build.labels(*named).set(1)
        self._build = named

    def set_ready(self, ready: bool) -> None:
        """Say whether the model takes calls."""
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

    def snapshot(self) -> dict[str, Any]:
        """Return what the status tab shows of the model; plain numbers and strings.

        `totals` counts since the start, `rates` and `latency_ms` the last minute, `rejected` by reason; `calls` is now.
        Requests and refusals that are about no model count too.
        """
        recent = self.recent.summary()
        families = self._families
        limit = self._limit
        rejected: CountOf[str] = CountOf()
        for labels, value in self._samples(families.rejected, "_total"):
            rejected[labels["reason"]] += int(value)
        return {
            "totals": {
                "requests": self._total(families.requests),
                "documents": self._total(families.documents, "_sum"),
                "document_errors": self._total(families.document_errors),
            },
            "rates": {"calls_per_s": recent.calls_per_s, "documents_per_s": recent.documents_per_s},
            "latency_ms": {"p50": recent.p50_ms, "p99": recent.p99_ms},
            "rejected": dict(rejected),
            "calls": {
                "running": limit.running if limit else 0,
                "waiting": limit.waiting if limit else 0,
                "max_running": limit.max_running if limit else 0,
                "max_waiting": limit.max_waiting if limit else 0,
            },
        }

    def _samples(self, family: Collector, suffix: str) -> list[tuple[dict[str, str], float]]:
        """Return the samples that are about this model, or about none."""
        return [
            (sample.labels, sample.value)
            for metric in family.collect()
            for sample in metric.samples
            if sample.name.endswith(suffix) and sample.labels["model"] in (self._model, NO_MODEL)
        ]

    def _total(self, family: Collector, suffix: str = "_total") -> int:
        return int(sum(value for _, value in self._samples(family, suffix)))
