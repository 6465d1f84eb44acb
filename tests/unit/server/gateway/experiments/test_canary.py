"""A canary's calls: whatever its model does, the caller has the control's answer, and the record says why."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fakes.dual_encoder import FakeTransport
from fakes.gateway import serve_several
from fastapi.testclient import TestClient
from lychee_client import (
    POLICIES,
    ConnectionFailedError,
    DeadlineExceededError,
    DocumentError,
    Image,
    InferenceError,
    InvalidInputError,
    InvalidOutputError,
    LycheeError,
    ModelNotReadyError,
    Policy,
    RerankResponse,
    ServerOverloadedError,
)
from lychee_client.transports.base import InferRequest, Request
from lychee_client.types import Timings
from lychee_server.gateway.documents import DocumentReader
from lychee_server.gateway.errors import RequestValueError
from lychee_server.gateway.experiments.canary import REASONS, ask_canary
from lychee_server.gateway.experiments.experiment_file import read_experiment
from lychee_server.gateway.limits import TooBusyError
from lychee_server.gateway.service import Service
from lychee_server.gateway.service_answer import ServiceAnswer

SALT = "0123456789abcdef"
READING_S = 0.3
ARMS = {
    "control": {"share": 0.5, "policy": "exploratory", "top_n": 2},
    "new": {"share": 0.5, "model": "b", "policy": "strict", "top_n": 1},
}
PHOTO = (
    "data:image/png;base64," + base64.b64encode(Image.from_numpy(np.full((40, 40), 200, np.uint8)).to_file()).decode()
)
CALL = {"query": "aaaa", "documents": ["aaaa", {"image": PHOTO}, {"text": "cccc", "colour": "red"}], "page": 1}


def answered(*errors: Exception) -> Any:
    failed = tuple(DocumentError(index, str(error), error) for index, error in enumerate(errors))  # type: ignore[arg-type]
    return SimpleNamespace(answer=ServiceAnswer(RerankResponse((), failed, Timings()), "id"))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ModelNotReadyError("away"), "not_ready"),
        (TooBusyError("all slots are taken", retry_after_s=1), "busy"),
        (ServerOverloadedError("the queue is full"), "busy"),
        (DeadlineExceededError("too late"), "timeout"),
        (InferenceError("the model failed"), "failed"),
        (ConnectionFailedError("gone"), "failed"),
        (RequestValueError("it takes fewer documents", "documents"), "failed"),
        (RuntimeError("nobody foresaw it"), "failed"),
    ],
)
def test_whatever_a_canary_fails_with_the_control_answers(error: Exception, reason: str) -> None:
    control = answered()
    asked: list[str] = []

    async def ask() -> Any:
        asked.append("canary")
        raise error

    async def ask_control() -> Any:
        asked.append("control")
        return control

    canary: Any = SimpleNamespace(health=SimpleNamespace(state="ready"))
    assert asyncio.run(ask_canary(canary, ask, ask_control)) == (control, reason)
    assert asked == ["canary", "control"]
    assert reason in REASONS


@pytest.mark.parametrize("state", ["starting", "degraded", "unavailable", "stopping"])
def test_a_canary_that_is_not_ready_is_not_asked(state: str) -> None:
    control = answered()

    async def ask() -> Any:
        raise AssertionError

    async def ask_control() -> Any:
        return control

    canary: Any = SimpleNamespace(health=SimpleNamespace(state=state))
    assert asyncio.run(ask_canary(canary, ask, ask_control)) == (control, "not_ready")


@pytest.mark.parametrize(
    ("errors", "reason"),
    [
        ([], None),
        ([InvalidInputError("it is empty")], None),
        ([InvalidInputError("it is empty"), InferenceError("the model failed")], "failed"),
        ([InvalidOutputError("no number")], "failed"),
    ],
)
def test_documents_that_the_canarys_model_fails_on_have_the_control_answer(
    errors: list[Exception], reason: str | None
) -> None:
    own, control = answered(*errors), answered()

    async def ask() -> Any:
        return own

    async def ask_control() -> Any:
        return control

    canary: Any = SimpleNamespace(health=SimpleNamespace(state="ready"))
    found, why = asyncio.run(ask_canary(canary, ask, ask_control))
    assert why == reason
    assert found is (own if reason is None else control)


class Model(FakeTransport):
    """A model that hangs or fails when it is told to; the golden pairs and probes of its health were over before."""

    def __init__(self, name: str, place: int) -> None:
        super().__init__(manifest={"model_id": name, "revision": "1", "version": 100 + place}, weights=place)
        self.hangs = False
        self.error: Exception | None = None
        self.hung = threading.Event()

    def send(self, request: Request, timeout_s: float | None) -> Future[Any]:
        """See Transport."""
        if not isinstance(request, InferRequest) or not (self.hangs or self.error):
            return super().send(request, timeout_s)
        future: Future[Any] = Future()
        if self.error is not None:
            future.set_exception(self.error)
        self.hung.set()
        return future


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LYCHEE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("LYCHEE_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    path = tmp_path / "experiment.json"
    path.write_text(json.dumps({"name": "shop", "salt": SALT, "unit": "call", "arms": ARMS}), encoding="utf-8")
    return path


Ask = Callable[..., Any]


class Gateway:
    """A gateway of a control `a` and a canary `b`."""

    def __init__(self, client: TestClient, models: dict[str, Model], file: Path) -> None:
        self.client = client
        self.models = models
        assignment = read_experiment(file).assignment()
        self.ids = {
            arm: [f"id-{number}" for number in range(100) if assignment.variant(f"id-{number}") == arm] for arm in ARMS
        }
        self._folder = file.parent / "state" / "experiments"

    def ask(self, arm: str = "new", **changes: Any) -> Any:
        """Send a call that has this arm."""
        headers = {"x-request-id": self.ids[arm].pop()}
        return self.client.post("/v1/rerank", json={**CALL, **changes}, headers=headers)

    def count(self, name: str) -> float:
        lines = self.client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f"lychee_gateway_{name}"))

    def records(self) -> list[dict[str, Any]]:
        """End the gateway, and return what it wrote."""
        self.client.__exit__()
        lines = [line for path in self._folder.glob("*.jsonl") for line in path.read_text().splitlines()]
        return [json.loads(line) for line in lines]


@contextmanager
def run(experiment: Path, own: dict[str, dict[str, Any]] | None = None, **settings: Any) -> Iterator[Gateway]:
    models = {name: Model(name, place) for place, name in enumerate(("a", "b"))}
    with serve_several(models, own, experiment=experiment, **settings) as client:
        gateway = Gateway(client, models, experiment)
        for name in models:
            ends_at_s = time.monotonic() + 30
            while client.post("/v1/score", json={"query": "q", "document": "d", "model": name}).status_code != 200:
                assert time.monotonic() < ends_at_s
                time.sleep(0.02)
        yield gateway


def scores(body: Any) -> list[float]:
    return [each["relevance_score"] for each in body["results"]]


def test_a_canary_that_hangs_costs_its_share_of_the_time_and_the_control_decides(
    experiment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []
    read = DocumentReader.read

    async def count(self: DocumentReader, values: Any, names: Any = None) -> Any:
        reads.append(len(values))
        await asyncio.sleep(READING_S)
        return await read(self, values, names)

    times: dict[str, float] = {}
    rerank = Service.rerank

    async def note(self: Service, query: Any, documents: Any, options: Any, **more: Any) -> Any:
        times[self.name] = options["timeout_s"]
        return await rerank(self, query, documents, options, **more)

    monkeypatch.setattr(DocumentReader, "read", count)
    monkeypatch.setattr(Service, "rerank", note)
    with run(experiment) as gateway:
        control = gateway.ask("control").json()
        own = gateway.ask().json()
        assert (control["model"], own["model"]) == ("a", "b")
        assert (len(control["results"]), len(own["results"])) == (2, 1)
        assert scores(control)[0] != pytest.approx(scores(own)[0])
        gateway.models["b"].hangs = True
        reads.clear()
        answer = gateway.ask(timeout_ms=4000)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        assert (body["model"], body["model_version"], body["experiment"]["arm"]) == ("a", 100, "new")
        assert scores(body) == pytest.approx(scores(control))
        assert reads == [4]  # the query and three documents, once
        assert 0 < times["b"] <= (4 - READING_S) / 2  # half of what is left of what the caller allows
        assert 0 < times["a"] <= 4 - READING_S - times["b"]  # what is left of that
        assert body["warnings"] == control["warnings"]
        assert gateway.count('experiment_fallbacks_total{arm="new",reason="timeout"}') == 1
        assert gateway.count("experiment_fallbacks_total") == 1
        assert gateway.count("experiment_failures_total") == 0
        assert gateway.count('request_duration_seconds_count{model="a",route="/v1/rerank"}') == 2
        first, second, third = gateway.records()
    assert [each["variant"] for each in (first, second, third)] == ["control", "new", "new"]
    assert (third["fallback"], third["served"], third["model_version"]) == ("timeout", "a", 100)
    assert [each["policy"]["name"] for each in (first, second, third)] == ["exploratory", "strict", "exploratory"]
    assert third["settings_sha256"] == first["settings_sha256"] != second["settings_sha256"]
    assert "fallback" not in second
    assert (second["served"], second["model_version"]) == ("b", 101)
    assert third["latency_ms"] > 1000  # what the caller waited, and not what the control took
    assert 0 < first["latency_ms"] < third["latency_ms"]


def test_a_canary_with_more_time_of_its_own_takes_none_of_the_controls(experiment: Path) -> None:
    with run(experiment, {"b": {"timeout_s": 600}}, timeout_s=4.0) as gateway:
        gateway.models["b"].hangs = True
        assert gateway.ask().status_code == 200
        assert gateway.count('experiment_fallbacks_total{arm="new",reason="timeout"}') == 1


def test_a_canary_with_less_time_of_its_own_takes_calls_that_ask_for_more(experiment: Path) -> None:
    with run(experiment, {"b": {"timeout_s": 20}}) as gateway:
        assert gateway.ask(timeout_ms=29_000).json()["model"] == "b"
        assert gateway.ask(timeout_ms=31_000).status_code == 400
        assert gateway.count("experiment_fallbacks_total") == 0


def test_a_canary_that_takes_fewer_documents_leaves_the_call_to_the_control(experiment: Path) -> None:
    with run(experiment, {"b": {"max_documents": 2}}) as gateway:
        assert gateway.ask().json()["model"] == "a"
        assert gateway.count('experiment_fallbacks_total{arm="new",reason="failed"}') == 1


def test_a_canary_without_a_free_slot_is_busy(experiment: Path) -> None:
    with run(experiment, {"b": {"max_concurrency": 1, "max_waiting": 0}}) as gateway, ThreadPoolExecutor(1) as pool:
        gateway.models["b"].hangs = True
        first = pool.submit(gateway.ask, timeout_ms=20_000)
        assert gateway.models["b"].hung.wait(30)
        assert gateway.ask(timeout_ms=20_000).json()["model"] == "a"
        assert gateway.count('experiment_fallbacks_total{arm="new",reason="busy"}') == 1
        assert first.result().status_code == 200


def test_what_nobody_answers_is_a_failure_and_what_the_caller_did_is_none(experiment: Path) -> None:
    with run(experiment) as gateway:
        assert gateway.ask(documents=[""]).status_code == 400
        assert gateway.ask(query={"image": "no image"}).status_code == 400
        assert gateway.ask(documents=[]).status_code == 400
        assert gateway.count("experiment_failures_total") == 0
        for model in gateway.models.values():
            model.error = InferenceError("the model failed", model_name="text_encoder")
        assert gateway.ask().status_code in (502, 503)
        assert gateway.count('experiment_failures_total{arm="new"}') == 1
        assert gateway.count('experiment_failures_total{arm="control"}') == 0
        (failure,) = gateway.records()
    assert (failure["record"], failure["variant"], failure["served"]) == ("failure", "new", "b")
    assert failure["error"] in ("InferenceError", "ModelNotReadyError")
    assert failure["latency_ms"] > 0


def test_an_error_that_nobody_foresaw_stays_with_the_canary(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with run(experiment) as gateway:
        gateway.models["b"].error = ArithmeticError("of a transport")
        assert gateway.ask().json()["model"] == "a"
        assert gateway.count('experiment_fallbacks_total{arm="new",reason="failed"}') == 1


def test_scores_of_pairs_take_no_part_and_have_no_shadow(tmp_path: Path, experiment: Path) -> None:
    told = json.loads(experiment.read_text()) | {"shadow": {"model": "b", "share": 1.0}}
    experiment.write_text(json.dumps(told))
    with run(experiment) as gateway:
        for body in ({"query": "q", "document": "d"}, {"queries": "q", "documents": ["d", "e"]}):
            assert gateway.client.post("/v1/score", json=body).status_code == 200
        assert gateway.count("experiment_shadow_calls_total") == gateway.count("experiment_shadow_dropped_total") == 0


def test_a_shadow_gets_its_share_of_the_calls_drawn_by_their_ids(experiment: Path) -> None:
    told = json.loads(experiment.read_text()) | {"shadow": {"model": "b", "share": 0.3}}
    experiment.write_text(json.dumps(told))
    assignment = read_experiment(experiment).assignment()
    with run(experiment) as gateway:
        ids = list(gateway.ids["control"])
        expected = sum(assignment.is_drawn(each, 0.3) for each in ids)
        for _ in ids:
            gateway.ask("control")
        offered = gateway.count("experiment_shadow_calls_total") + gateway.count("experiment_shadow_dropped_total")
    assert 0 < expected < len(ids)
    assert offered <= expected
    pairs = [each for each in gateway.records() if each["record"] == "shadow"]
    assert {(pair["primary"]["name"], pair["shadow"]["name"]) for pair in pairs} == {("a", "b")}


def test_a_shadow_of_a_failing_model_is_counted_and_the_caller_hears_nothing(experiment: Path) -> None:
    told = {"name": "shop", "salt": SALT, "shadow": {"model": "b", "share": 1.0}}
    experiment.write_text(json.dumps(told))
    with run(experiment) as gateway:
        gateway.models["b"].error = LycheeError("of a transport")
        answer = gateway.client.post("/v1/rerank", json=CALL)
        assert answer.json()["model"] == "a"
        ends_at_s = time.monotonic() + 30
        while not gateway.count('experiment_shadow_calls_total{outcome="failed"}'):
            assert time.monotonic() < ends_at_s
            time.sleep(0.02)


def test_the_shadow_decides_by_its_models_policy_unless_the_call_names_one(experiment: Path) -> None:
    experiment.write_text(json.dumps({"name": "shop", "salt": SALT, "shadow": {"model": "b", "share": 1.0}}))
    own = Policy("custom", accept=0.999, review=0.999)  # above all scores
    texts = [4 * chr(ord("a") + number) for number in range(20)]  # with scores between the policies' thresholds
    with run(experiment, {"b": {"policy": "strict"}}) as gateway:
        for number, policy in enumerate([{}, {"policy": {"accept": own.accept}}], start=1):
            assert gateway.client.post("/v1/rerank", json={**CALL, "documents": texts, **policy}).status_code == 200
            ends_at_s = time.monotonic() + 30
            while gateway.count('experiment_shadow_calls_total{outcome="answered"}') < number:
                assert time.monotonic() < ends_at_s
                time.sleep(0.02)
        pairs = gateway.records()
    assert all(pair[side]["latency_ms"] > 0 for pair in pairs for side in ("primary", "shadow"))
    for pair, policies in zip(pairs, [(POLICIES["balanced"], POLICIES["strict"]), (own, own)], strict=True):
        for side, decides in zip(("primary", "shadow"), policies, strict=True):
            for result in pair[side]["results"]:
                score = result["relevance_score"]
                decision = "accept" if score >= decides.accept else "review" if score >= decides.review else "reject"
                assert result["decision"] == decision
    decided = [[each["decision"] for each in pair["shadow"]["results"]] for pair in pairs]
    assert decided[0] != decided[1]
    between = [each["relevance_score"] for each in pairs[0]["shadow"]["results"]]
    assert any(POLICIES["balanced"].accept <= score < POLICIES["strict"].accept for score in between)
