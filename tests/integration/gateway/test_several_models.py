"""One real gateway in front of two real Tritons: each call gets its model, and neither costs the other anything."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from checkpoints.changed_weights import change_weights
from fakes.calibrations import make_calibration
from lychee_client import LycheeClient
from lychee_server import TritonServer

from .running_gateway import RunningGateway, run_gateway

pytestmark = pytest.mark.triton

QUERY = "a cat in the sun"
DOCUMENTS = ["the kitten sleeps on the window sill", "a cup of coffee", "店里的小猫喜欢晒太阳", "two dogs run"]
CALLERS = 6
CALLS_EACH = 12
WAIT_S = 120.0
NAMES = ("mini", "changed")
ALIAS = "rerank-v3.5"

Scores = list[float]


def wait_until(is_so: Callable[[], bool]) -> None:
    ends_at_s = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < ends_at_s
        time.sleep(0.05)


@pytest.fixture(scope="module")
def changed(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository of the same model with other weights."""
    return change_weights(repository, tmp_path_factory.mktemp("changed") / "mini")


@pytest.fixture(scope="module")
def other(changed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """Serve it."""
    ports = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
    with TritonServer(changed, config_name="cpu", **ports, log_path=tmp_path_factory.mktemp("log") / "log") as running:
        yield running


@pytest.fixture(scope="module")
def expected(server: TritonServer, other: TritonServer) -> dict[str, Scores]:
    """Return what each model says, asked without a gateway."""
    scores = {}
    for name, triton in zip(NAMES, (server, other), strict=True):
        with LycheeClient(triton.grpc_url, embedding_cache=None) as client:
            results = client.rerank(QUERY, DOCUMENTS).results
        scores[name] = [result.relevance_score for result in sorted(results, key=lambda result: result.index)]
    assert max(abs(a - b) for a, b in zip(*scores.values(), strict=True)) > 0.01
    return scores


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("several")


@pytest.fixture(scope="module")
def models(server: TritonServer, other: TritonServer, folder: Path) -> Path:
    """Write the file of the models."""
    file = folder / "models.json"
    own = {
        "mini": {"triton_url": server.grpc_url},
        "changed": {
            "triton_url": other.grpc_url,
            "served_model_names": [ALIAS],
            "policy": "strict",
            "max_concurrency": 1,
            "max_waiting": 0,
        },
    }
    file.write_text(json.dumps({"models": own}), encoding="utf-8")
    return file


@contextmanager
def run(models: Path, *options: str) -> Iterator[RunningGateway]:
    state = str(models.parent / "state")
    folder = models.parent / f"{len(list(models.parent.iterdir()))}"
    folder.mkdir()
    options = ("--no-web", "--models", str(models), *options)
    with run_gateway(folder, "127.0.0.1:9", *options, LYCHEE_STATE_DIR=state) as gateway:
        wait_until(lambda: json.loads(gateway.get("/health/ready")[1])["status"] == "ok")
        yield gateway


@pytest.fixture(scope="module")
def gateway(models: Path) -> Iterator[RunningGateway]:
    with run(models) as running:
        yield running


@pytest.fixture
def post(gateway: RunningGateway) -> Iterator[Callable[..., httpx.Response]]:
    with httpx.Client(base_url=gateway.url, timeout=WAIT_S, trust_env=False) as client:
        yield lambda path, body: client.post(path, json=body)


# What each dialect sends for a model, and where its answer has scores in the order of the documents.
DIALECTS: dict[str, tuple[str, dict[str, Any], Callable[[Any], Scores]]] = {
    "cohere": (
        "/v2/rerank",
        {"query": QUERY, "documents": DOCUMENTS},
        lambda answer: [
            each["relevance_score"] for each in sorted(answer["results"], key=lambda result: result["index"])
        ],
    ),
    "voyage": (
        "/voyage/v1/rerank",
        {"query": QUERY, "documents": DOCUMENTS},
        lambda answer: [each["relevance_score"] for each in sorted(answer["data"], key=lambda one: one["index"])],
    ),
    "mixedbread": (
        "/v1/reranking",
        {"query": QUERY, "input": DOCUMENTS},
        lambda answer: [each["score"] for each in sorted(answer["data"], key=lambda one: one["index"])],
    ),
    "vllm": (
        "/v1/score",
        {"text_1": QUERY, "text_2": DOCUMENTS},
        lambda answer: [each["score"] for each in answer["data"]],
    ),
}


def test_every_call_gets_its_model_also_of_many_at_the_same_time(
    gateway: RunningGateway, expected: dict[str, Scores], post: Callable[..., httpx.Response]
) -> None:
    def call(number: int) -> None:
        for step in range(CALLS_EACH):
            name = NAMES[(number + step) % 2]
            path, body, read = list(DIALECTS.values())[(number // 2 + step) % len(DIALECTS)]
            answer = post(path, {**body, "model": ALIAS if name == "changed" and step % 3 else name})
            while answer.status_code == 429:  # the second model has a single slot
                assert name == "changed"
                time.sleep(0.02)
                answer = post(path, {**body, "model": name})
            assert answer.status_code == 200, answer.text
            assert read(answer.json()) == pytest.approx(expected[name], abs=1e-4), (path, name)

    with ThreadPoolExecutor(CALLERS) as pool:
        list(pool.map(call, range(CALLERS)))
    without = post("/v1/rerank", {"query": QUERY, "documents": DOCUMENTS})
    assert DIALECTS["cohere"][2](without.json()) == pytest.approx(expected["mini"], abs=1e-4)
    lines = [line for line in gateway.lines() if line.get("message") == "request" and line.get("served")]
    assert {line["served"] for line in lines} == set(NAMES)
    metrics = gateway.get("/metrics")[1]
    for name in NAMES:
        assert f'lychee_gateway_ready{{model="{name}"}} 1.0' in metrics
        assert f'lychee_gateway_golden_passed{{model="{name}"}} 1.0' in metrics
        assert f'modality="text",model="{name}",route="/v1/score",status="200"' in metrics
    assert 'lychee_gateway_calls_running_limit{model="changed"} 1.0' in metrics


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_name_that_nobody_has_is_refused(post: Callable[..., httpx.Response], dialect: str) -> None:
    path, body, _ = DIALECTS[dialect]
    answer = post(path, {**body, "model": "lychee-mini"})  # both have this id, so it names neither
    assert answer.status_code == 404
    assert all(name in answer.text for name in (*NAMES, ALIAS))


def test_a_client_of_today_gets_the_default(gateway: RunningGateway, expected: dict[str, Scores]) -> None:
    with LycheeClient(gateway.url) as client:
        assert client.wait_until_ready(WAIT_S) is None
        results = client.rerank(QUERY, DOCUMENTS).results
    scores = [result.relevance_score for result in sorted(results, key=lambda result: result.index)]
    assert scores == pytest.approx(expected["mini"], abs=1e-4)


def test_the_backlog_of_one_model_takes_no_slot_of_another(post: Callable[..., httpx.Response]) -> None:
    over = False

    def flood(number: int) -> list[int]:
        statuses = []
        while not over:
            documents = [f"{number} {len(statuses)} {place}" for place in range(50)]
            statuses.append(
                post("/v1/rerank", {"query": QUERY, "documents": documents, "model": "changed"}).status_code
            )
        return statuses

    with ThreadPoolExecutor(4) as pool:
        flooding = [pool.submit(flood, number) for number in range(4)]
        try:
            calm = [
                post("/v1/rerank", {"query": QUERY, "documents": DOCUMENTS, "model": "mini"}).status_code
                for _ in range(10)
            ]
        finally:
            over = True
        flooded = {status for each in flooding for status in each.result(WAIT_S)}
    assert calm == [200] * 10
    assert flooded == {200, 429}


def calibrate(triton: TritonServer, threshold: float) -> bytes:
    with LycheeClient(triton.grpc_url) as client:
        return make_calibration(client.manifest().identity, threshold).to_bytes()


def test_policies_and_calibrations_are_each_models_own_also_after_a_restart(
    server: TritonServer, other: TritonServer, models: Path
) -> None:
    without_policy = json.loads(models.read_text(encoding="utf-8"))
    del without_policy["models"]["changed"]["policy"]  # it would decide again after a restart
    file = models.parent / "without-policy.json"
    file.write_text(json.dumps(without_policy), encoding="utf-8")

    def thresholds(gateway: RunningGateway) -> list[tuple[str, float]]:
        told = [json.loads(gateway.get(f"/v1/calibration?model={name}")[1]) for name in NAMES]
        return [(each["default_policy"], each["accept"]) for each in told]

    with run(models) as gateway:
        assert thresholds(gateway) == [("balanced", 0.55), ("strict", 0.75)]
    with run(file) as gateway:
        url = f"{gateway.url}/v1/calibration"
        assert httpx.put(url, content=calibrate(other, 0.9), trust_env=False).status_code == 200  # the ids are the same
        assert httpx.delete(url, trust_env=False).status_code == 200
        taken = httpx.put(url, params={"model": ALIAS}, content=calibrate(other, 0.8), trust_env=False)
        assert taken.status_code == 200, taken.text
        assert thresholds(gateway) == [("balanced", 0.55), ("calibration", 0.8)]
    with run(file) as gateway:
        assert thresholds(gateway) == [("balanced", 0.55), ("calibration", 0.8)]
        taken = httpx.put(f"{gateway.url}/v1/calibration", content=calibrate(server, 0.7), trust_env=False)
        assert taken.status_code == 200, taken.text
        assert thresholds(gateway) == [("calibration", 0.7), ("calibration", 0.8)]


def test_a_killed_triton_costs_its_own_model_alone_and_it_comes_back(
    gateway: RunningGateway, other: TritonServer, changed: Path, expected: dict[str, Scores], tmp_path: Path
) -> None:
    def ask(name: str) -> httpx.Response:
        body = {"query": QUERY, "documents": DOCUMENTS, "model": name}
        return httpx.post(f"{gateway.url}/v1/rerank", json=body, timeout=WAIT_S, trust_env=False)

    assert gateway.get("/health")[0] == 200
    psutil.Process(other.pid).kill()
    other.stop()  # sweep up
    wait_until(lambda: gateway.get("/health/ready?model=changed")[0] == 503)
    refused = ask("changed")
    assert (refused.status_code, "retry-after" in refused.headers) == (503, True)
    assert [ask("mini").status_code for _ in range(5)] == [200] * 5
    status, text = gateway.get("/health/ready")
    assert (status, json.loads(text)["status"]) == (200, "degraded")
    assert json.loads(text)["models"]["mini"] == {"status": "ok"}
    assert gateway.get("/health")[0] == 503
    assert json.loads(gateway.get("/v1/status?model=mini")[1])["state"] == "ready"
    assert json.loads(gateway.get("/v1/status?model=changed")[1])["state"] == "unavailable"
    assert 'lychee_gateway_triton_up{model="changed"} 0.0' in gateway.get("/metrics")[1]
    port = int(other.grpc_url.rpartition(":")[2])
    ports = {"http_port": 0, "grpc_port": port, "metrics_port": 0}
    with TritonServer(changed, config_name="cpu", **ports, log_path=tmp_path / "triton.log"):
        wait_until(lambda: gateway.get("/health/ready?model=changed")[0] == 200)
        answer = ask("changed")
        assert DIALECTS["cohere"][2](answer.json()) == pytest.approx(expected["changed"], abs=1e-4)
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(WAIT_S) == 0
