"""Metrics: what is counted, and that callers cannot make them grow."""

from __future__ import annotations

import asyncio

import pytest
from lychee_client import DocumentError, InvalidInputError, ReplicaStatus, RerankResponse, RerankResult, Timings
from lychee_server.gateway.cache import CacheStatistics
from lychee_server.gateway.limits import ConcurrencyLimit
from lychee_server.gateway.metrics import Metrics
from prometheus_client.parser import text_string_to_metric_families


class Cache:
    """Tells its statistics."""

    def statistics(self) -> CacheStatistics:
        return CacheStatistics("memory", entries=3, bytes=288, max_bytes=1000, hits=7, misses=5, evictions=2)


def read(metrics: Metrics) -> dict[str, float]:
    """Return every sample that is not 0 as `name{label=value,...}`, without prefix."""
    text, content_type = metrics.render()
    assert content_type.startswith("text/plain; version=0.0.4")
    samples = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            assert sample.name.startswith("lychee_gateway_")
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            samples[f"{sample.name.removeprefix('lychee_gateway_')}{{{labels}}}"] = sample.value
    return samples


def make_response() -> RerankResponse:
    results = (
        RerankResult(1, 0.9, 2.2, "accept", "text"),
        RerankResult(0, 0.45, -0.2, "review", "image"),
        RerankResult(3, 0.05, -3.0, "reject", "text"),
    )
    error = InvalidInputError("empty", index=2)
    timings = Timings(total_ms=200, preprocess_ms=20, encode_query_ms=30, score_documents_ms=120)
    return RerankResponse(results, (DocumentError(2, "empty", error),), timings)


def test_a_request_is_counted_by_route_method_status_and_modality() -> None:
    metrics = Metrics()
    metrics.observe_request("/v1/rerank", 200, "mixed", 0.03, model="default")
    metrics.observe_request("/v1/rerank", 200, "mixed", 0.3, model="default")
    metrics.observe_request("/health", 503, None, 0.001, method="GET")
    samples = read(metrics)
    assert samples["requests_total{method=POST,modality=mixed,model=default,route=/v1/rerank,status=200}"] == 2
    assert samples["requests_total{method=GET,modality=none,model=,route=/health,status=503}"] == 1
    assert samples["request_duration_seconds_bucket{le=0.05,model=default,route=/v1/rerank}"] == 1
    assert samples["request_duration_seconds_sum{model=default,route=/v1/rerank}"] == pytest.approx(0.33)


def test_a_call_is_counted_by_documents_decisions_scores_and_stages() -> None:
    metrics = Metrics()
    metrics.of().observe_rerank("/v1/rerank", make_response(), "exploratory")
    metrics.of().observe_rerank("/v1/rerank", make_response(), "strict ' policy of a caller", documents=100)
    samples = read(metrics)
    assert samples["documents_sum{model=default,route=/v1/rerank}"] == 104
    assert samples["documents_bucket{le=5.0,model=default,route=/v1/rerank}"] == 1
    assert samples["document_errors_total{model=default,reason=invalid_input}"] == 2
    assert samples["document_errors_total{model=default,reason=invalid_output}"] == 0
    assert samples["decisions_total{decision=accept,model=default,policy=exploratory}"] == 1
    assert samples["decisions_total{decision=review,model=default,policy=custom}"] == 1
    assert samples["relevance_score_count{model=default}"] == 6
    assert samples["relevance_score_bucket{le=0.45,model=default}"] == 4
    assert samples["rerank_stage_seconds_sum{model=default,stage=score_documents}"] == pytest.approx(0.24)
    assert samples["rerank_stage_seconds_sum{model=default,stage=encode_query}"] == pytest.approx(0.06)


def test_what_callers_invent_adds_no_labels() -> None:
    metrics = Metrics()
    metrics.observe_request("/v1/rerank", 200, "text", 0.1)
    metrics.observe_request("/v1/rerank", 200, "invented", 0.1, method="INVENTED")
    metrics.of().observe_rerank("/v1/rerank", make_response(), "custom")
    before = len(read(metrics))
    for number in range(50):
        metrics.observe_request("/v1/rerank", 200, f"kind-{number}", 0.1, method=f"METHOD-{number}")
        metrics.of().observe_rerank("/v1/rerank", make_response(), f"policy-{number}")
    assert len(read(metrics)) == before


def test_rejections_are_counted_from_zero_by_known_reasons() -> None:
    metrics = Metrics()
    metrics.reject("busy")
    samples = read(metrics)
    assert samples["rejected_total{model=,reason=busy}"] == 1
    assert samples["rejected_total{model=,reason=url_refused}"] == 0
    with pytest.raises(AssertionError):
        metrics.reject("invented")


def test_gauges_show_the_limit_of_now() -> None:
    async def test() -> None:
        metrics, limit = Metrics(), ConcurrencyLimit(3, 5)
        metrics.of().watch_limit(limit)
        async with limit.slot(None):
            samples = read(metrics)
            assert samples["calls_running{model=default}"] == 1
            assert samples["calls_running_limit{model=default}"] == 3
            assert metrics.snapshot()["calls"] == {"running": 1, "waiting": 0, "max_running": 3, "max_waiting": 5}
            assert metrics.calls_in_flight == 1
        assert read(metrics)["calls_running{model=default}"] == 0

    asyncio.run(test())


def test_the_cache_is_read_when_the_metrics_are() -> None:
    metrics = Metrics()
    metrics.watch_cache(Cache())
    samples = read(metrics)
    assert samples["embedding_cache_hits_total{backend=memory}"] == 7
    assert samples["embedding_cache_misses_total{backend=memory}"] == 5
    assert samples["embedding_cache_evictions_total{backend=memory}"] == 2
    assert samples["embedding_cache_bytes{backend=memory}"] == 288
    assert metrics.snapshot()["cache"]["max_bytes"] == 1000


def test_state_shows_health_and_one_model() -> None:
    metrics = Metrics()
    metrics.of().set_golden(True, 0.004)
    metrics.of().set_triton_up(True)
    metrics.of().set_ready(True)
    metrics.of().set_model("0.1.0", "first", "1")
    metrics.of().set_model("0.1.0", "lychee-mini", "abc")
    samples = read(metrics)
    assert (
        samples["golden_passed{model=default}"]
        == samples["triton_up{model=default}"]
        == samples["ready{model=default}"]
        == 1
    )
    assert samples["golden_max_abs_error{model=default}"] == 0.004
    assert [name for name in samples if name.startswith("build_info")] == [
        "build_info{model=default,model_id=lychee-mini,revision=abc,version=0.1.0}"
    ]
    assert samples["process_resident_memory_bytes{}"] > 1e6
    assert samples["process_open_fds{}"] > 0


def test_two_gateways_of_one_process_count_for_themselves() -> None:
    first, second = Metrics(), Metrics()
    first.reject("busy")
    assert read(second)["rejected_total{model=,reason=busy}"] == 0


def test_the_snapshot_tells_totals_rates_and_percentiles() -> None:
    metrics = Metrics()
    metrics.of()
    for milliseconds in range(1, 101):
        metrics.observe_request("/v1/rerank", 200, "text", milliseconds / 1e3, model="default")
        metrics.of().observe_rerank("/v1/rerank", make_response(), "balanced")
    metrics.observe_request("/health", 200, None, 60.0)  # no call
    metrics.reject("busy")
    snapshot = metrics.snapshot()
    assert snapshot["totals"] == {"requests": 101, "documents": 400, "document_errors": 100}
    assert snapshot["latency_ms"]["p50"] == pytest.approx(50, rel=0.02)
    assert snapshot["latency_ms"]["p99"] == pytest.approx(99, rel=0.02)
    assert snapshot["rejected"]["busy"] == 1
    assert snapshot["rates"]["documents_per_s"] == pytest.approx(4 * snapshot["rates"]["calls_per_s"])
    assert snapshot["cache"] is None


class Spreading:
    """Tells of replicas."""

    def __init__(self, *replicas: ReplicaStatus) -> None:
        self._replicas = replicas

    def replicas(self) -> tuple[ReplicaStatus, ...]:
        return self._replicas

    def sent_again(self) -> dict[str, int]:
        return {"slow": 3, "failed": 2}


def test_replicas_are_counted_by_state_and_a_single_triton_is_none() -> None:
    metrics = Metrics()
    metrics.of().watch_replicas(
        Spreading(ReplicaStatus("a", "live"), ReplicaStatus("b", "live"), ReplicaStatus("c", "lost"))
    )
    samples = {name: value for name, value in read(metrics).items() if name.startswith("triton_re") and value}
    assert samples == {
        "triton_replicas{model=default,state=live}": 2,
        "triton_replicas{model=default,state=lost}": 1,
        "triton_requests_sent_again_total{model=default,reason=slow}": 3,
        "triton_requests_sent_again_total{model=default,reason=failed}": 2,
    }
    single = Metrics()
    single.of().watch_replicas(Spreading())
    assert not [name for name in read(single) if name.startswith("triton_re")]
