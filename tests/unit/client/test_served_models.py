"""Which of the models that a server offers a client means, and what it says where that one is not there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from fakes.dual_encoder import FakeTransport
from fakes.http_gateway import MODEL, Answer, Asked, FakeGateway, rank, refusal
from lychee_client import (
    AsyncLycheeClient,
    ConfigurationError,
    CrossEncoder,
    LycheeClient,
    ModelNotReadyError,
    ServedModel,
)
from lychee_client.cli import app
from lychee_client.integrations.reranker import Reranker
from typer.testing import CliRunner

BASE = {**MODEL, "root": MODEL["id"], "name": "base", "default": True, "ready": True, "version": 1}
CLIP = {**BASE, "root": "org/clip", "name": "clip", "default": False, "version": 2, "max_timeout_ms": 5000.0}
CLIP |= {"reads_instruction": True, "default_instruction": "find it"}
ENTRIES = [BASE, {**BASE, "id": "base"}, {**CLIP, "id": "org/clip"}, {**CLIP, "id": "clip"}]
MODELS = {"base": ("fake-model", 1), "clip": ("org/clip", 2)}


def answer_as_named(asked: Asked) -> Answer:
    """Rank, and say which model did it."""
    model_id, version = MODELS[asked.body.get("model", "base").rpartition("/")[2]]
    return Answer({**rank(asked).content, "model": model_id, "model_version": version})


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    with FakeGateway().run() as running:
        running.own |= {
            "GET /v1/models": Answer({"object": "list", "data": ENTRIES}),
            "POST /v1/rerank": answer_as_named,
        }
        yield running


def sent(gateway: FakeGateway) -> Any:
    return [asked.body for asked in gateway.asked if asked.path == "/v1/rerank"]


def test_the_name_travels_with_every_call_and_its_model_counts(gateway: FakeGateway) -> None:
    with LycheeClient(gateway.url, model="clip", timeout_s=60) as client:
        responses = [client.rerank("q", ["a"]) for _ in range(2)]
    assert [body["model"] for body in sent(gateway)] == ["clip", "clip"]
    assert [body["timeout_ms"] for body in sent(gateway)] == [5000.0, 5000.0]
    assert responses[1].model is not None
    assert (responses[1].model.model_id, responses[1].instruction) == ("org/clip", "find it")
    assert gateway.paths().count("/v1/models") == 1


def test_without_a_name_none_is_sent_and_the_default_counts(gateway: FakeGateway) -> None:
    with LycheeClient(gateway.url) as client:
        response = client.rerank("q", ["a"])
    assert "model" not in sent(gateway)[0]
    assert response.model is not None
    assert response.model.model_id == "fake-model"


def test_the_async_client_does_the_same(gateway: FakeGateway) -> None:
    async def call() -> Any:
        async with AsyncLycheeClient(gateway.url, model="org/clip") as client:
            return await client.rerank("q", ["a"]), await client.models()

    response, served = asyncio.run(call())
    assert sent(gateway)[0]["model"] == "org/clip"
    assert response.model.model_id == "org/clip"
    assert [model.names for model in served] == [("fake-model", "base"), ("org/clip", "clip")]


def test_models_are_listed_once_whatever_their_names(gateway: FakeGateway) -> None:
    gateway.own["GET /v1/models"] = Answer({"data": [*ENTRIES[:3], {**CLIP, "id": "clip", "ready": False}]})
    with LycheeClient(gateway.url, model="nobody") as client:  # also where none has the client's name
        base, clip = client.models()
    assert isinstance(base, ServedModel)
    assert (base.names, base.is_default, base.is_ready, base.version) == (("fake-model", "base"), True, True, 1)
    assert (clip.names, clip.is_default, clip.identity.model_id) == (("org/clip", "clip"), False, "org/clip")
    assert clip.max_timeout_s == 5.0


def test_an_unknown_name_is_refused_with_those_that_are_served(gateway: FakeGateway) -> None:
    told = "the model 'x' is not served; expected one of fake-model, base, org/clip, clip"
    gateway.routes["GET /v1/models/x"] = refusal(404, "model_not_found", told)
    with LycheeClient(gateway.url, model="x") as client:
        with pytest.raises(ConfigurationError, match="expected one of fake-model, base, org/clip, clip"):
            client.rerank("q", ["a"])
        gateway.routes["GET /health/ready?model=x"] = refusal(404, "model_not_found", told)
        with pytest.raises(ConfigurationError, match="expected one of"):
            client.wait_until_ready(timeout_s=20)
    assert sent(gateway) == []


def test_the_only_model_of_a_gateway_is_not_taken_for_another(gateway: FakeGateway) -> None:
    gateway.own["GET /v1/models"] = Answer({"data": [MODEL]})
    gateway.routes["GET /v1/models/x"] = Answer(MODEL)  # with one model, every name is taken
    with (
        LycheeClient(gateway.url, model="x") as client,
        pytest.raises(ConfigurationError, match=r"asks for the model 'x' .*LYCHEE_MODEL.* serves fake-model; "),
    ):
        client.rerank("q", ["a"])
    assert sent(gateway) == []


def test_a_model_that_has_never_been_ready_is_waited_for(gateway: FakeGateway) -> None:
    gateway.own["GET /v1/models"] = Answer({"data": ENTRIES[:2]})
    gateway.routes["GET /v1/models/clip"] = refusal(503, "unavailable", "clip may be one that is away")
    with LycheeClient(gateway.url, model="clip", max_retries=0) as client:
        with pytest.raises(ModelNotReadyError, match="away"):
            client.rerank("q", ["a"], timeout_s=20)
        gateway.own["GET /v1/models"] = Answer({"data": ENTRIES})
        assert client.rerank("q", ["a"]).model_version == 2


def test_a_model_that_an_arm_names_is_told_and_the_clients_own_kept(gateway: FakeGateway) -> None:
    def by_arm(asked: Asked) -> Answer:
        content = rank(asked).content
        arm = {"experiment": {"name": "e", "arm": "b"}, "ranking_id": "1"}
        return Answer({**content, "model": "org/clip", "model_version": 2, **arm})

    gateway.routes["POST /v1/rerank"] = by_arm
    with LycheeClient(gateway.url) as client:
        response = client.rerank("q", ["a"])
    assert response.model is not None
    assert response.model.model_id == "org/clip"
    assert gateway.paths().count("/v1/models") == 1


def test_the_status_tells_of_all_models_and_is_ready_by_the_one_that_is_meant(gateway: FakeGateway) -> None:
    health = {
        "base": {"status": "ok"},
        "clip": {"status": "unavailable", "reason": "lost"},
        "new": {"status": "unavailable", "reason": "starting"},
    }
    gateway.own["GET /health/ready"] = Answer({"status": "degraded", "models": health})
    for name, ready in ((None, True), ("base", True), ("clip", False), ("new", False)):
        with LycheeClient(gateway.url, model=name) as client:
            status = client.server_status()
        assert status.ready is ready, name
        assert [(model.name, model.ready, model.reason) for model in status.models] == [
            ("fake-model", True, ""),
            ("org/clip", False, "lost"),
            ("new", False, "starting"),
        ]


def test_a_triton_must_serve_the_model_of_the_name() -> None:
    with (
        LycheeClient("localhost:1", transport=FakeTransport(), model="no-such") as client,
        pytest.raises(ConfigurationError, match=r"the model 'no-such' .* localhost:1 serves ") as caught,
    ):
        client.rerank("q", ["a"])
    with LycheeClient(transport=FakeTransport()) as client:
        (served,) = client.models()
    assert all(each in str(caught.value) for each in served.names)
    with LycheeClient(transport=FakeTransport(), model=served.names[-1]) as client:
        assert client.rerank("q", ["a"]).results


def test_the_environment_names_the_model_and_none_or_an_argument_goes_before_it(
    gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LYCHEE_MODEL", "clip")
    for options in ({}, {"model": None}, {"model": "base"}):
        with LycheeClient(gateway.url, **options) as client:
            client.rerank("q", ["a"])
    assert [body.get("model") for body in sent(gateway)] == ["clip", None, "base"]


@pytest.mark.parametrize("name", ["", " clip", "a\nb", 7, "x" * 257])
def test_what_is_no_name_is_refused(name: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"model \(or LYCHEE_MODEL\) is "):
        LycheeClient(model=name)


def test_the_rankers_of_frameworks_and_the_cross_encoder_pass_it_on(gateway: FakeGateway) -> None:
    ranker: Reranker[str] = Reranker(str, lambda document: None, gateway.url, model="clip")
    ranker.rank("q", ["a"])
    ranker.close()
    with CrossEncoder(gateway.url, model="clip") as encoder:
        encoder.predict([("q", "a")])
    assert [body["model"] for body in sent(gateway)] == ["clip", "clip"]
    with LycheeClient(gateway.url) as client, pytest.raises(ConfigurationError, match="url, headers or model"):
        Reranker(str, lambda document: None, client=client, model="clip")


def test_the_commands_have_the_option(gateway: FakeGateway) -> None:
    call = ["--url", gateway.url, "--model", "clip", "--json", "--query", "q"]
    ranked = CliRunner().invoke(app, ["score", *call, "--text", "a"])
    assert ranked.exit_code == 0, ranked.output
    assert json.loads(ranked.stdout)["relevance_score"] == 0.5
    assert sent(gateway)[0]["model"] == "clip"
    gateway.routes["GET /v1/models/x"] = refusal(404, "model_not_found", "the model 'x' is not served; expected clip")
    refused = CliRunner().invoke(app, ["score", "--url", gateway.url, "--model", "x", "--query", "q", "--text", "a"])
    assert (refused.exit_code, "expected clip" in refused.stderr) == (2, True), refused.output


def test_the_doctor_says_which_models_a_gateway_serves(gateway: FakeGateway) -> None:
    health = {"base": {"status": "ok"}, "clip": {"status": "unavailable", "reason": "lost"}}
    gateway.own["GET /health/ready"] = Answer({"status": "degraded", "models": health})
    told = CliRunner().invoke(app, ["doctor", "--url", gateway.url, "--json"])
    server = next(each for each in json.loads(told.stdout)["checks"] if each["name"] == "server")
    assert server["verdict"] == "warning"
    assert "fake-model revision r1, org/clip revision r1" in server["seen"]
    assert "org/clip is not ready: lost" in server["seen"]
