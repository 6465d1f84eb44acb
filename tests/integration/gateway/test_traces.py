"""Traces: from the caller through the gateway to Triton's own spans, and none of what callers send in them."""

from __future__ import annotations

import base64
import json
import re
import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from lychee_client import Image, LycheeClient
from lychee_client.tracing.opentelemetry import OpenTelemetryTracer
from lychee_server import TritonServer
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from ..faults import Fault, FaultProxy
from .otlp_receiver import OtlpReceiver, ReceivedSpan, receive_traces, tree
from .running_gateway import STOP_TIMEOUT_S, RunningGateway, run_gateway

pytestmark = pytest.mark.triton

SERVER, CLIENT = 2, 3  # kinds of spans
KEY = "canary-of-the-key"
CANARY = "canary"
TRITON = {"InferRequest": {"text_encoder": {"compute": {}}}}
HEADS = {"InferRequest": {"scoring_head_text": {"scoring_heads": {"compute": {}}}}}


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    with receive_traces() as running:
        yield running


@pytest.fixture(scope="module")
def variables(receiver: OtlpReceiver) -> Iterator[dict[str, str]]:
    """Set the standard variables for Triton, which takes this process's, and return them for the gateway."""
    wanted = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-receiver=opens",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in wanted.items():
            patch.setenv(name, value)
        yield wanted


@pytest.fixture(scope="module")
def traced_server(
    repository: Path, variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TritonServer]:
    log_path = tmp_path_factory.mktemp("traced-triton") / "triton.log"
    ports = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
    with TritonServer(repository, config_name="cpu", **ports, log_path=log_path) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(
    traced_server: TritonServer, variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningGateway]:
    folder = tmp_path_factory.mktemp("traced-gateway")
    environment = {**variables, "LYCHEE_GATEWAY_API_KEYS": KEY}
    triton_url = f"http://{traced_server.http_url}"  # over gRPC Triton overlooks some traces
    with run_gateway(folder, triton_url, "--no-web", "--timeout-s", "120", **environment) as running:
        running.wait_for("/health/ready", 200)
        yield running


Call = Callable[..., httpx.Response]


@pytest.fixture(scope="module")
def call(gateway: RunningGateway) -> Iterator[Call]:
    """Send JSON with the key, as a part of a trace where one is named."""

    def post(path: str, body: Any, parent: str = "", **headers: str) -> httpx.Response:
        fields = {**headers, **({"traceparent": parent} if parent else {})}
        return client.post(path, json=body, headers={"x-api-key": KEY, **fields})

    with httpx.Client(base_url=gateway.url, timeout=120, trust_env=False) as client:
        yield post


def make_parent(*, sampled: bool = True) -> tuple[str, str, str]:
    """Return the ids of a caller's trace and span, and its header."""
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    return trace_id, span_id, f"00-{trace_id}-{span_id}-{'01' if sampled else '00'}"


def named(spans: list[ReceivedSpan], name: str) -> list[ReceivedSpan]:
    return [span for span in spans if span.name == name]


def has(*names: str) -> Callable[[list[ReceivedSpan]], bool]:
    """Say whether spans of all these names are there."""
    return lambda spans: set(names) <= {span.name for span in spans}


def test_one_trace_leads_from_the_caller_through_the_gateway_to_triton(
    receiver: OtlpReceiver, call: Call, gateway: RunningGateway, root: Path
) -> None:
    trace_id, span_id, parent = make_parent()
    photo = base64.b64encode((root / "examples/catalogue/photos/cat.jpg").read_bytes()).decode()
    body = {"query": "a cat", "documents": ["a dog", "a small cat", {"image": f"data:image/jpeg;base64,{photo}"}]}

    answer = call("/v1/rerank", body, parent, **{"tracestate": "shop=7", "x-request-id": "order-7"})

    assert answer.status_code == 200
    receiver.wait_for(
        lambda spans: has("POST /v1/rerank", "rerank")(spans) and len(named(spans, "compute")) == 5, trace_id
    )
    spans = receiver.spans(trace_id)
    assert tree(spans, span_id) == {
        "POST /v1/rerank": {
            "read": {},
            "queue": {},
            "rerank": {
                "tokenize": {},
                "decode": {},
                "triton text_encoder": TRITON,
                "triton vision_encoder": {"InferRequest": {"vision_encoder": {"compute": {}}}},
                "triton scoring_head_text": HEADS,
                "triton scoring_head_image": {
                    "InferRequest": {"scoring_head_image": {"scoring_heads": {"compute": {}}}}
                },
                "rank": {},
            },
        }
    }
    (request,), (ranking,) = named(spans, "POST /v1/rerank"), named(spans, "rank")
    assert (request.kind, request.service, request.is_error) == (SERVER, "lychee-gateway", False)
    (made,) = named(spans, "rerank")
    for name in ("lychee.model.id", "lychee.model.version"):
        assert request.attributes.pop(name) == made.attributes[name] != ""
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/rerank",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "lychee.request_id": "order-7",
        "lychee.documents": 3,
        "lychee.errors": 0,
        "lychee.warnings": 0,
        "lychee.modality": "mixed",
    }
    assert ranking.attributes["lychee.results"] == 3
    assert sum(value for name, value in ranking.attributes.items() if "decisions" in name) == 3
    requests = [span for span in spans if span.kind == CLIENT]
    assert {span.attributes["http.response.status_code"] for span in requests} == {200}
    assert {span.attributes["server.port"] for span in requests} == {int(gateway_port_of(gateway))}
    assert {span.attributes["lychee.attempt"] for span in requests} == {1}
    assert {span.service for span in named(spans, "InferRequest")} == {"lychee-triton"}
    assert {headers["x-receiver"] for headers in receiver.headers} == {"opens"}


def gateway_port_of(gateway: RunningGateway) -> str:
    """Return the port of the Triton that a gateway asks."""
    arguments = [str(argument) for argument in gateway.process.args]  # type: ignore[union-attr]
    return arguments[arguments.index("--triton-url") + 1].rpartition(":")[2]


def test_no_exported_byte_holds_what_callers_send(receiver: OtlpReceiver, call: Call, gateway: RunningGateway) -> None:
    trace_id, _, parent = make_parent()
    image = {"image": f"https://{CANARY}.example.org/{CANARY}.jpg"}
    odd = {"image": "data:image/png;base64," + base64.b64encode(CANARY.encode()).decode()}
    body = {
        "query": f"{CANARY} of the query",
        "documents": [f"{CANARY} of a document", {"text": f"{CANARY} beside", **image}, odd, "", {CANARY: CANARY}],
        "user": f"{CANARY}-of-the-user",
        "model": f"{CANARY}-of-the-model",
        "instruction": f"{CANARY} of the instruction",
        CANARY: CANARY,
    }
    query = f"?{CANARY}={CANARY}"
    statuses = [
        call(f"/v1/rerank{query}", body, parent, baggage=f"user={CANARY}").status_code,
        call(f"/v1/rerank{query}", {**body, "documents": CANARY}, parent).status_code,
        call(f"/v1/rerank{query}", {**body, "query": odd}, parent).status_code,
        call(f"/v1/score{query}", {"query": CANARY, "document": image}, parent).status_code,
        call(f"/v1/{CANARY}{query}", body, parent).status_code,
        call("/v1/rerank", body, parent, **{"x-api-key": f"{CANARY}-of-a-wrong-key"}).status_code,
    ]

    assert statuses == [200, 422, 400, 400, 404, 401]
    receiver.wait_for(lambda spans: len(_requests(spans)) == len(statuses) and has("compute")(spans), trace_id)
    servers = _requests(receiver.spans(trace_id))
    assert sorted(span.attributes["http.response.status_code"] for span in servers) == sorted(statuses)
    assert not any(span.is_error for span in servers)  # the callers made the mistakes
    everything = b"\n".join(receiver.bodies)
    assert CANARY.encode() not in everything.lower()
    assert KEY.encode() not in everything


def _requests(spans: list[ReceivedSpan]) -> list[ReceivedSpan]:
    """Return the spans of requests to the gateway."""
    return [span for span in spans if span.service == "lychee-gateway" and span.kind == SERVER]


def test_of_several_models_the_span_names_the_chosen_one(
    receiver: OtlpReceiver, traced_server: TritonServer, variables: dict[str, str], tmp_path: Path
) -> None:
    url = f"http://{traced_server.http_url}"
    with FaultProxy(traced_server.http_url) as proxy:  # no two models have the same address
        models = {"models": {"small": {"triton_url": url}, "large": {"triton_url": f"http://{proxy.address}"}}}
        (tmp_path / "models.json").write_text(json.dumps(models), encoding="utf-8")
        options = ("--no-web", "--models", str(tmp_path / "models.json"))
        parents = {name: make_parent() for name in ("small", "large", f"{CANARY}-of-a-model")}
        with (
            run_gateway(tmp_path, url, *options, **variables) as gateway,
            httpx.Client(base_url=gateway.url, timeout=120, trust_env=False) as client,
        ):
            gateway.wait_for("/health/ready?model=small", 200)
            gateway.wait_for("/health/ready?model=large", 200)
            for name, (_, _, parent) in parents.items():
                body = {"query": "a cat", "documents": ["a tiger"], "model": name}
                status = client.post("/v1/rerank", json=body, headers={"traceparent": parent}).status_code
                assert status == (404 if CANARY in name else 200)
            for trace_id, _, _ in parents.values():
                receiver.wait_for(lambda spans: len(_requests(spans)) == 1, trace_id)
    found = {name: _requests(receiver.spans(trace_id))[0].attributes for name, (trace_id, _, _) in parents.items()}
    told = [{key: value for key, value in each.items() if "model" in key} for each in found.values()]
    (rerank,) = named(receiver.spans(parents["large"][0]), "rerank")
    of_both = {key: rerank.attributes[key] for key in ("lychee.model.id", "lychee.model.version")}
    assert told == [{**of_both, "lychee.model.name": "small"}, {**of_both, "lychee.model.name": "large"}, {}]
    assert CANARY.encode() not in b"\n".join(receiver.bodies).lower()


def test_what_the_caller_does_not_sample_nobody_exports(
    receiver: OtlpReceiver, call: Call, gateway: RunningGateway
) -> None:
    silent, _, parent = make_parent(sampled=False)
    body = {"query": "a cat", "documents": ["a bird"]}
    assert call("/v1/rerank", body, parent).status_code == 200
    sampled, _, parent = make_parent()
    assert call("/v1/rerank", {**body, "documents": ["a fish"]}, parent).status_code == 200

    receiver.wait_for(has("POST /v1/rerank", "InferRequest", "compute"), sampled)
    assert receiver.spans(silent) == []
    lines = [line for line in gateway.lines() if line.get("trace_id") == silent]
    assert [line["route"] for line in lines] == ["/v1/rerank"]  # the log knows the trace all the same


def test_a_call_without_a_trace_begins_one_and_watching_does_not(
    receiver: OtlpReceiver, call: Call, gateway: RunningGateway
) -> None:
    request_id = f"alone-{secrets.token_hex(4)}"
    assert call("/v1/score", {"query": "a cat", "document": "a cow"}, **{"x-request-id": request_id}).status_code == 200
    for path in ("/health/ready", "/health", "/metrics"):
        assert gateway.get(path, {"x-api-key": KEY})[0] == 200

    def is_alone(span: ReceivedSpan) -> bool:
        return span.attributes.get("lychee.request_id") == request_id

    receiver.wait_for(lambda spans: any(map(is_alone, spans)))
    (request,) = filter(is_alone, receiver.spans())
    assert (request.parent_id, request.name) == ("", "POST /v1/score")
    (line,) = [line for line in gateway.lines() if line.get("request_id") == request_id]
    assert (line["trace_id"], line["span_id"]) == (request.trace_id, request.span_id)
    names = {span.name for span in receiver.spans() if span.kind == SERVER}
    assert not any("health" in name or "metrics" in name for name in names)


def test_the_latency_histogram_leads_to_the_trace(call: Call, gateway: RunningGateway) -> None:
    trace_id, _, parent = make_parent()
    assert call("/v1/rerank", {"query": "a cat", "documents": ["a lamp"]}, parent).status_code == 200

    plain = httpx.get(f"{gateway.url}/metrics", headers={"x-api-key": KEY}, trust_env=False)
    accept = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.3"
    answer = httpx.get(f"{gateway.url}/metrics", headers={"x-api-key": KEY, "accept": accept}, trust_env=False)

    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert trace_id not in plain.text
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    latency = families["lychee_gateway_request_duration_seconds"]
    exemplars = [sample.exemplar for sample in latency.samples if sample.exemplar is not None]
    assert trace_id in {exemplar.labels["trace_id"] for exemplar in exemplars}


@pytest.fixture
def caller(receiver: OtlpReceiver) -> Iterator[TracerProvider]:
    """Be a program that uses the SDK, and exports spans of its own."""
    provider = TracerProvider(resource=Resource({"service.name": "shop"}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{receiver.endpoint}/v1/traces")))
    yield provider
    provider.shutdown()


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_the_sdk_leads_its_callers_trace_to_triton(
    receiver: OtlpReceiver, caller: TracerProvider, traced_server: TritonServer, protocol: str
) -> None:
    url = traced_server.grpc_url if protocol == "grpc" else f"http://{traced_server.http_url}"
    parents = []
    with LycheeClient(url, tracer=OpenTelemetryTracer(caller), embedding_cache=None) as client:
        client.manifest()
        for _ in range(10 if protocol == "grpc" else 1):  # over gRPC Triton overlooks some
            with caller.get_tracer("shop").start_as_current_span("search") as search:
                client.rerank("a cat", ["a dog"])
                list(client.rerank_many([("a cat", ["a fish"])]))
            own = search.get_span_context()
            parents.append((trace.format_trace_id(own.trace_id), trace.format_span_id(own.span_id)))

    def find_whole() -> tuple[str, str] | None:
        return next((ids for ids in parents if len(named(receiver.spans(ids[0]), "compute")) == 4), None)

    receiver.wait_for(lambda spans: find_whole() is not None)
    whole = find_whole()
    assert whole is not None
    spans = receiver.spans(whole[0])
    assert tree(spans, whole[1]) == {
        "rerank": {"tokenize": {}, "triton text_encoder": TRITON, "triton scoring_head_text": HEADS, "rank": {}}
    }
    assert len(named(spans, "rerank")) == 2
    status = {"grpc": ("rpc.response.status_code", "OK"), "http": ("http.response.status_code", 200)}[protocol]
    requests = [span for span in spans if span.kind == CLIENT]
    assert {span.attributes[status[0]] for span in requests} == {status[1]}
    assert {span.attributes["server.port"] for span in requests} == {int(url.rpartition(":")[2])}


def test_the_sdk_leads_its_callers_trace_through_a_gateway(
    receiver: OtlpReceiver, caller: TracerProvider, gateway: RunningGateway
) -> None:
    with LycheeClient(gateway.url, api_key=KEY, tracer=OpenTelemetryTracer(caller)) as client:
        client.rerank("a cat", ["a hat"])  # finds out that it is a gateway
        with caller.get_tracer("shop").start_as_current_span("search") as search:
            client.rerank("a cat", ["a pot"])

    trace_id = trace.format_trace_id(search.get_span_context().trace_id)
    receiver.wait_for(has("search", "compute", "rank"), trace_id)
    found = tree(receiver.spans(trace_id), "")
    # Client, client of HTTP, gateway, client of the gateway, client of gRPC: a span each.
    assert found["search"]["rerank"]["POST /v1/rerank"]["POST /v1/rerank"]["rerank"]["triton text_encoder"] == TRITON


def test_what_the_sdk_does_not_sample_neither_gateway_nor_triton_export(
    receiver: OtlpReceiver, traced_server: TritonServer, gateway: RunningGateway
) -> None:
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    before = {span.trace_id for span in receiver.spans()}
    for url in (traced_server.grpc_url, f"http://{traced_server.http_url}", gateway.url):
        with LycheeClient(url, api_key=KEY, tracer=OpenTelemetryTracer(provider)) as client:
            client.rerank("a cat", ["a mug"])
    sampled, _, parent = make_parent()
    headers = {"traceparent": parent}
    with LycheeClient(gateway.url, api_key=KEY, headers=headers) as client:
        client.rerank("a cat", ["a jar"])
    receiver.wait_for(has("POST /v1/rerank", "compute"), sampled)
    assert {span.trace_id for span in receiver.spans()} - before == {sampled}


def test_a_request_that_is_sent_again_is_another_attempt(
    receiver: OtlpReceiver, caller: TracerProvider, traced_server: TritonServer
) -> None:
    with FaultProxy(traced_server.grpc_url) as proxy:
        tracer = OpenTelemetryTracer(caller)
        with LycheeClient(proxy.address, tracer=tracer, timeout_s=60, embedding_cache=None) as client:
            client.manifest()
            proxy.behave(Fault.RESET, times=1)
            with caller.get_tracer("shop").start_as_current_span("search") as search:
                client.rerank("a cat", ["a dog"])

    trace_id = trace.format_trace_id(search.get_span_context().trace_id)
    receiver.wait_for(has("search", "rank"), trace_id)
    attempts = sorted(
        (span.attributes["lychee.attempt"], span.is_error, span.attributes.get("error.type"))
        for span in named(receiver.spans(trace_id), "triton text_encoder")
    )
    assert attempts[0] == (1, True, "UNAVAILABLE")
    assert attempts[-1][1:] == (False, None)
    assert [number for number, _, _ in attempts] == list(range(1, len(attempts) + 1))


def test_another_replica_is_another_attempt(
    receiver: OtlpReceiver, caller: TracerProvider, traced_server: TritonServer
) -> None:
    with FaultProxy(traced_server.grpc_url) as first, FaultProxy(traced_server.grpc_url) as second:
        url = f"{first.address},{second.address}"
        tracer = OpenTelemetryTracer(caller)
        with LycheeClient(url, tracer=tracer, timeout_s=60, embedding_cache=None) as client:
            for number in range(20):  # until both have answered
                client.rerank("a cat", [f"a dog {number}"])
            first.behave(Fault.RESET)
            for number in range(20):
                with caller.get_tracer("shop").start_as_current_span("search") as search:
                    client.rerank("a cat", [f"a cow {number}"])
                trace_id = trace.format_trace_id(search.get_span_context().trace_id)
                receiver.wait_for(has("search"), trace_id)
                sent = [span for span in receiver.spans(trace_id) if span.kind == CLIENT]
                failed = [span for span in sent if span.is_error]
                if failed:
                    break
    lost, moved_to = (int(proxy.address.rpartition(":")[2]) for proxy in (first, second))
    assert {span.attributes["server.port"] for span in failed} == {lost}
    for one in failed:
        own = [span for span in sent if span.name == one.name]
        assert moved_to in {span.attributes["server.port"] for span in own if not span.is_error}
        assert len({span.attributes["lychee.attempt"] for span in own}) == len(own)


def test_the_last_spans_leave_before_the_gateway_ends(
    receiver: OtlpReceiver, traced_server: TritonServer, variables: dict[str, str], tmp_path: Path
) -> None:
    environment = {**variables, "OTEL_BSP_SCHEDULE_DELAY": "3600000", "OTEL_SERVICE_NAME": "shop-ranking"}
    trace_id, _, parent = make_parent()
    with run_gateway(tmp_path, traced_server.grpc_url, "--no-web", **environment) as gateway:
        gateway.wait_for("/health/ready", 200)
        body = {"query": "a cat", "documents": ["a door"]}
        headers = {"traceparent": parent}
        answer = httpx.post(f"{gateway.url}/v1/rerank", json=body, headers=headers, timeout=60, trust_env=False)
        assert answer.status_code == 200
        assert "shop-ranking" not in {span.service for span in receiver.spans(trace_id)}
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(STOP_TIMEOUT_S) == 0
    assert {"POST /v1/rerank", "rank"} <= {s.name for s in receiver.spans(trace_id) if s.service == "shop-ranking"}


def test_a_receiver_that_is_away_or_does_not_answer_costs_no_call_and_no_stop(
    traced_server: TritonServer, tmp_path: Path
) -> None:
    options = {"OTEL_BSP_SCHEDULE_DELAY": "10", "OTEL_BSP_MAX_QUEUE_SIZE": "8", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4"}
    with receive_traces() as silent, ExitStack() as stack:
        silent.answers.clear()
        gateways = []
        for name, endpoint in (("away", "http://127.0.0.1:1"), ("silent", silent.endpoint)):
            (tmp_path / name).mkdir()
            environment = {**options, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
            running = run_gateway(tmp_path / name, traced_server.grpc_url, "--no-web", **environment)
            gateways.append(stack.enter_context(running))
        for gateway in gateways:
            gateway.wait_for("/health/ready", 200)
            for number in range(10):
                body = {"query": "a cat", "documents": [f"a tree {number}"]}
                answer = httpx.post(f"{gateway.url}/v1/rerank", json=body, timeout=60, trust_env=False)
                assert answer.status_code == 200
        for gateway in gateways:
            gateway.process.send_signal(signal.SIGTERM)
        for gateway in gateways:
            assert gateway.process.wait(STOP_TIMEOUT_S) == 0
            written = gateway.output_path.read_text(encoding="utf-8")
            assert not re.search(
                r"a cat|a tree", written + (gateway.output_path.parent / "gateway.err").read_text(encoding="utf-8")
            )


def test_the_photo_of_a_query_is_decoded_in_a_span(
    receiver: OtlpReceiver, caller: TracerProvider, traced_server: TritonServer, root: Path
) -> None:
    photo = Image.from_path(root / "examples/catalogue/photos/cat.jpg")
    with LycheeClient(traced_server.grpc_url, tracer=OpenTelemetryTracer(caller)) as client:
        client.manifest()
        with caller.get_tracer("shop").start_as_current_span("search") as search:
            client.rerank(photo, ["a dog"])
    trace_id = trace.format_trace_id(search.get_span_context().trace_id)
    receiver.wait_for(has("search"), trace_id)
    assert "decode" in tree(receiver.spans(trace_id), "")["search"]["rerank"]
