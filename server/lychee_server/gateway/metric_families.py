"""The families of the gateway's metrics: their names, their labels, and the few values that each label takes.

What is about a model has the label `model`: its name in the file of the models, or ONLY_MODEL where there is one model
and no file. It is empty, which to Prometheus is the same as absent, where a request or a refusal was about none.

All labels have few values by construction: route templates instead of paths, methods and modalities from fixed sets,
custom policies under one name. So what a caller sends can never make the metrics grow.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

PREFIX: Final = "lychee_gateway"
ONLY_MODEL: Final = "default"
NO_MODEL: Final = ""
LATENCY_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
DOCUMENT_BUCKETS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
SCORE_BUCKETS: Final = tuple(step / 20 for step in range(1, 21))
REASONS: Final = ("busy", "too_large", "unauthorized", "invalid", "url_refused", "stopping", "foreign", "slow")
MODEL_REASONS: Final = ("busy", "invalid")  # those for which a model's calls and documents are refused
FAILURES: Final = ("invalid_input", "invalid_output", "model_failed")  # kinds of errors, see errors.py
IGNORED: Final = ("field", "key", "model")
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"})
MODALITIES: Final = frozenset({"text", "image", "image_text", "mixed"})
CUSTOM_POLICY: Final = "custom"
NONE: Final = "none"
OTHER: Final = "other"


class MetricFamilies:
    """All families that are counted with; made once for each gateway.

    Args:
        registry: Where they are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._make_request_metrics()
        self._make_call_metrics()
        self._make_state_metrics()

    def _make_request_metrics(self) -> None:
        self.requests = self._counter("requests", "HTTP requests", ("route", "method", "status", "modality", "model"))
        self.latency = self._histogram(
            "request_duration_seconds", "Wall time of a request", LATENCY_BUCKETS_S, ("route", "model")
        )
        self.rejected = self._counter("rejected", "Calls and documents that were refused", ("reason", "model"))
        self.ignored = self._counter("ignored", "Calls with something unknown that was ignored", ("what",))
        self.in_flight = self._gauge("requests_in_flight", "HTTP requests that are being answered")

    def _make_call_metrics(self) -> None:
        self.stages = self._histogram(
            "rerank_stage_seconds", "Wall time of a stage; the stages overlap", LATENCY_BUCKETS_S, ("stage", "model")
        )
        self.documents = self._histogram("documents", "Documents per call", DOCUMENT_BUCKETS, ("route", "model"))
        self.document_errors = self._counter(
            "document_errors", "Documents that could not be ranked", ("reason", "model")
        )
        self.decisions = self._counter("decisions", "Results by decision", ("policy", "decision", "model"))
        self.scores = self._histogram("relevance_score", "Scores of results", SCORE_BUCKETS, ("model",))

    def _make_state_metrics(self) -> None:
        self.running = self._of_model("calls_running", "Calls that are being computed")
        self.waiting = self._of_model("calls_waiting", "Calls that wait for a slot")
        self.max_running = self._of_model("calls_running_limit", "Calls that may be computed at the same time")
        self.max_waiting = self._of_model("calls_waiting_limit", "Calls that may wait for a slot")
        self.ready = self._of_model("ready", "1 while the gateway is ready for calls")
        self.triton_up = self._of_model("triton_up", "1 while the Triton server answers")
        self.golden_passed = self._of_model("golden_passed", "1 while the golden pairs match, 0 before the first check")
        self.golden_error = self._of_model("golden_max_abs_error", "Largest error of the last golden check")
        self.build = self._gauge("build_info", "Always 1", ("version", "model_id", "revision", "model"))

    def _of_model(self, name: str, text: str) -> Gauge:
        return self._gauge(name, text, ("model",))

    def _counter(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(f"{PREFIX}_{name}", text, labels, registry=self._registry)

    def _gauge(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(f"{PREFIX}_{name}", text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()) -> Histogram:
        return Histogram(f"{PREFIX}_{name}", text, labels, registry=self._registry, buckets=buckets)
