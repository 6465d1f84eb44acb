"""A client whose URL is a gateway's: what it asks, what it makes of the answers, and what it says instead."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from fakes.dual_encoder import FakeTransport
from fakes.http_gateway import MODEL, Answer, Asked, FakeGateway, rank, refusal
from lychee_client import (
    AsyncLycheeClient,
    ConfigurationError,
    ConnectionFailedError,
    ContractError,
    DeadlineExceededError,
    ExperimentArm,
    FeedbackEvent,
    Image,
    Images,
    ImageText,
    InferenceError,
    InvalidInputError,
    InvalidOutputError,
    LycheeClient,
    LycheeError,
    LycheeWarning,
    MemoryEmbeddingCache,
    ModelNotReadyError,
    Policy,
    RequestRejectedError,
    RerankOptions,
    RerankResult,
    ServerError,
    ServerOverloadedError,
    Text,
)
from lychee_client._config import load_config
from lychee_client._gateway import answer, body
from lychee_client.instructions.lint import lint_instruction
from lychee_client.triton_key import KEY_HEADER, KEY_VARIABLE

KEY = "the-secret-key"
TRITON = Answer({"name": "triton", "version": "2.51.0", "extensions": ["classification"]})


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    with FakeGateway().run() as running:
        yield running


@pytest.fixture
def client(gateway: FakeGateway) -> Iterator[LycheeClient]:
    with LycheeClient(gateway.url, max_retries=0) as client:
        yield client


def sent(gateway: FakeGateway) -> Any:
    """Return the last body that the gateway was sent."""
    return next(asked.body for asked in reversed(gateway.asked) if asked.method == "POST")


def pixels_of(data_url: str) -> Any:
    return np.asarray(PIL.Image.open(io.BytesIO(base64.b64decode(data_url.partition(",")[2]))))


def test_a_gateway_is_recognised_once_and_its_model_asked_once(gateway: FakeGateway, client: LycheeClient) -> None:
    for _ in range(2):
        response = client.rerank("q", ["a", "bbb"])
    assert gateway.paths() == ["/health/live", "/v1/models", "/v1/rerank", "/v1/rerank"]
    assert [(result.index, result.logit) for result in response] == [(1, 3.0), (0, 1.0)]
    assert response.model is not None
    assert (response.model.model_id, response.model.artifacts) == ("fake-model", MODEL["artifacts"])
    assert response.model.execution == {"text_encoder": "fp32"}


def test_the_async_client_gets_the_same(gateway: FakeGateway, client: LycheeClient) -> None:
    async def call() -> Any:
        async with AsyncLycheeClient(gateway.url) as asynchronous:
            return await asynchronous.rerank("q", ["a", "bbb"])

    assert asyncio.run(call()).results == client.rerank("q", ["a", "bbb"]).results


def test_nothing_is_asked_before_the_first_call_nor_for_no_documents(
    gateway: FakeGateway, client: LycheeClient
) -> None:
    assert client.rerank("q", []).results == ()
    assert gateway.asked == []


def test_a_triton_is_recognised_once_and_gets_no_key(gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LYCHEE_API_KEY", KEY)
    gateway.anything = refusal(404, "of Triton")
    gateway.routes = {
        "GET /v2": TRITON,
        "GET /v2/models/stats": Answer({"model_stats": []}),
    }
    with LycheeClient(gateway.url) as client:
        for _ in range(2):
            assert client.model_timings() == {}
    assert gateway.paths() == ["/health/live", "/v2", "/v2/models/stats", "/v2/models/stats"]
    assert KEY not in str([asked.headers for asked in gateway.asked])


def test_what_was_not_recognised_is_asked_again(gateway: FakeGateway, client: LycheeClient) -> None:
    gateway.anything = Answer(b"<html>default backend</html>", 404)
    with pytest.raises(RequestRejectedError, match=r"answered 404, and not as a gateway does .*BaseHTTP.*HOST:7860"):
        client.score("q", "a")
    gateway.anything = None
    assert client.score("q", "a") == 0.5


def test_a_gateway_that_comes_up_later_is_waited_for(gateway: FakeGateway, client: LycheeClient) -> None:
    gateway.anything = Answer(b"the proxy finds nobody", 502)
    asked: list[str] = []

    def answer_later(request: Asked) -> Answer:
        asked.append(request.path)
        if len(asked) == 3:
            gateway.anything = None
        return Answer({"status": "ok"}) if len(asked) > 2 else Answer(b"", 502)

    def be_ready_later(request: Asked) -> Answer:
        asked.append(request.path)
        return Answer({"status": "ok"}) if asked.count(request.path) > 1 else refusal(503, "unavailable")

    gateway.routes = {"GET /health/live": answer_later, "GET /health/ready": be_ready_later}
    client.wait_until_ready(20)
    assert asked == [*["/health/live"] * 3, *["/health/ready"] * 2]
    assert client.score("q", "a") == 0.5


@pytest.mark.parametrize(("path", "prefix"), [("/rerank/", "/rerank"), ("/rerank/v1", "/rerank")])
def test_a_url_with_a_path_is_a_gateways_below_it(path: str, prefix: str, gateway: FakeGateway) -> None:
    gateway.routes = {place.replace(" ", f" {prefix}"): answer for place, answer in gateway.own.items()}
    with LycheeClient(gateway.url + path) as client:
        assert client.score("q", "a") == 0.5
    assert gateway.paths() == ["/rerank/v1/models", "/rerank/v1/rerank"]


@pytest.mark.parametrize(
    ("url", "address", "path"),
    [
        ("https://rerank.example.org", "rerank.example.org", ""),
        ("http://host/a/b/", "host", "/a/b"),
        ("http://[::1]/x", "[::1]", "/x"),
    ],
)
def test_urls_that_only_a_gateway_can_have(url: str, address: str, path: str) -> None:
    config = load_config(url)
    connection = config.make_connection(None)
    assert (connection.address, connection.path, config.may_be_triton) == (address, path, False)


def test_base_urls_of_other_clients_lead_to_the_same_server() -> None:
    config = load_config("http://localhost:7860/v1")
    assert (config.may_be_triton, config.make_connection(None).path) == (True, "")


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_the_api_key_goes_to_the_gateway_and_is_never_shown(
    by: str, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.routes["POST /v1/rerank"] = refusal(401, "unauthorized", "the API key is not known here")
    if by == "environment":
        monkeypatch.setenv("LYCHEE_API_KEY", KEY)
    with LycheeClient(gateway.url, api_key=KEY if by == "argument" else None) as client:
        with pytest.raises(
            RequestRejectedError, match=r"401: the API key is not known here; .*LYCHEE_API_KEY"
        ) as caught:
            client.score("q", "a")
        assert caught.value.status == "401"
        seen = [str(caught.value), repr(client._config), repr(vars(client._calls)), repr(caught.value.__cause__)]
    keys = [asked.headers.get("x-api-key") for asked in gateway.asked]
    assert keys == [None, KEY, KEY]
    assert KEY not in str(seen)


def test_a_key_that_cannot_be_sent_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigurationError, match="api_key") as caught:
        LycheeClient("http://localhost:7860", api_key="two words")
    assert "two words" not in str(caught.value)


def test_the_key_of_triton_does_not_go_to_a_gateway(gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "of-triton")
    with LycheeClient(gateway.url, headers={"X-Tenant": "blue"}) as client:
        client.score("q", "a")
    assert all(asked.headers["x-tenant"] == "blue" for asked in gateway.asked)
    assert not any(KEY_HEADER in asked.headers for asked in gateway.asked)


def test_inputs_travel_in_the_gateways_shapes(gateway: FakeGateway, client: LycheeClient, photos: Path) -> None:
    cat = photos / "cat.jpg"
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    gray = PIL.Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4))
    documents = [
        "text",
        Text("text too"),
        Image.from_path(cat),
        Image.from_bytes(b"GIF89a, as far as the client cares"),
        ImageText(Image.from_numpy(pixels), "pixels"),
        Images([Image.from_pil(gray), Image.from_numpy(pixels)]),
        ImageText(Images([Image.from_numpy(pixels)]), "one of several"),
    ]
    client.rerank(ImageText(Image.from_path(cat), "query"), documents, min_results=np.int64(1))
    body = sent(gateway)
    photo = f"data:image/*;base64,{base64.b64encode(cat.read_bytes()).decode()}"
    assert body["query"] == {"text": "query", "image": photo}
    text, plain, from_path, from_bytes, with_text, several, one = body["documents"]
    assert [text, plain, from_path] == ["text", "text too", {"image": photo}]
    assert from_bytes["image"].endswith(base64.b64encode(b"GIF89a, as far as the client cares").decode())
    assert np.array_equal(pixels_of(with_text["image"]), pixels)
    assert np.array_equal(pixels_of(several["images"][0])[:, :, 1], np.asarray(gray))
    assert (one["text"], len(one["images"]), body["min_results"]) == ("one of several", 1, 1)


def test_a_turned_pillow_image_is_sent_upright_once(gateway: FakeGateway, client: LycheeClient) -> None:
    turned = PIL.Image.fromarray(np.arange(18, dtype=np.uint8).reshape(2, 3, 3))
    turned.getexif()[0x0112] = 6
    client.rerank("q", [Image.from_pil(turned)])
    data = base64.b64decode(sent(gateway)["documents"][0]["image"].partition(",")[2])
    seen = PIL.Image.open(io.BytesIO(data))
    assert seen.size == (2, 3)
    assert not seen.getexif()


def test_every_option_is_sent_or_translated() -> None:
    assert RerankOptions.__annotations__.keys() == {*body.SENT, *body.TRANSLATED, *body.REFUSED}


def test_every_field_of_a_result_is_read() -> None:
    assert {*answer._NAMES, "index", "document"} == {field.name for field in fields(RerankResult)}


def test_options_reach_the_gateway(gateway: FakeGateway, client: LycheeClient) -> None:
    options: RerankOptions = {
        "top_n": 2,
        "score_threshold": 0.5,
        "min_results": 1,
        "policy": Policy("mine", accept=0.7, review=0.3),
        "priority": "bulk",
        "server_timings": True,
        "timeout_s": 5.0,
        "request_id": "mine-1",
        "return_documents": True,
    }
    documents = ["a", Text("bb")]
    response = client.rerank("q", documents, **options)
    body = sent(gateway)
    assert 1000 < body.pop("timeout_ms") <= 5000
    assert body == {
        "query": "q",
        "documents": ["a", "bb"],
        "policy": {"accept": 0.7, "review": 0.3},
        "min_results": 1,
        "priority": "bulk",
        "score_threshold": 0.5,
        "server_timings": True,
        "top_n": 2,
    }
    assert [result.document for result in response] == [documents[1], documents[0]]
    assert {asked.headers["x-request-id"] for asked in gateway.asked} == {"mine-1"}


@pytest.mark.parametrize(("timeout_s", "expected"), [(600.0, 20000.0), (None, None)])
def test_no_more_time_is_asked_for_than_the_gateway_gives(
    timeout_s: float | None, expected: float | None, gateway: FakeGateway, client: LycheeClient
) -> None:
    client.rerank("q", ["a"], timeout_s=timeout_s)
    assert sent(gateway).get("timeout_ms") == expected


def test_an_instruction_is_settled_as_without_a_gateway(gateway: FakeGateway) -> None:
    with LycheeClient(gateway.url) as client, pytest.warns(LycheeWarning, match="reads no instruction"):
        response = client.rerank("q", ["a"], instruction="find it")
    assert (response.instruction, sent(gateway).get("instruction")) == (None, None)
    assert response.warnings == ("fake-model reads no instruction; the one given is ignored",)
    reading = {**MODEL, "reads_instruction": True, "default_instruction": "the default"}
    gateway.routes["GET /v1/models"] = Answer({"data": [reading]})
    with LycheeClient(gateway.url) as client:
        assert client.rerank("q", ["a"]).instruction == "the default"
        assert client.rerank("q", ["a"], instruction="find it").instruction == "find it"
    assert sent(gateway)["instruction"] == "find it"


def test_what_client_and_gateway_both_warn_of_is_told_once(gateway: FakeGateway) -> None:
    gateway.routes["GET /v1/models"] = Answer(
        {"data": [{**MODEL, "reads_instruction": True, "default_instruction": "d"}]}
    )
    (warning,) = map(str, lint_instruction("只返回完全匹配的结果"))
    gateway.routes["POST /v1/rerank"] = lambda asked: Answer({**rank(asked).content, "warnings": [warning, "another"]})
    with LycheeClient(gateway.url) as client, pytest.warns(LycheeWarning):
        response = client.rerank("q", ["a"], instruction="只返回完全匹配的结果")
    assert response.warnings == (warning, "another")


def test_documents_that_cannot_be_sent_cost_the_others_nothing(
    gateway: FakeGateway, client: LycheeClient, tmp_path: Path
) -> None:
    def refuse_first(asked: Asked) -> Answer:
        content = rank(asked).content
        first = next(entry for entry in content["results"] if entry["index"] == 0)
        first |= {"decision": "error", "logit": None, "relevance_score": 0.0, "message": "unreadable"}
        content["results"].sort(key=lambda entry: entry["decision"] == "error")
        content["errors"] = [{"index": 0, "message": "unreadable", "type": "invalid_input"}]
        return Answer(content)

    gateway.routes["POST /v1/rerank"] = refuse_first
    documents: Any = ["", Image.from_path(tmp_path / "missing.jpg"), "refused", "good", 7]
    response = client.rerank("q", documents)
    assert [result.index for result in response] == [3]
    assert [(failed.index, failed.error.index) for failed in response.errors] == [(0, 0), (1, 1), (2, 2), (4, 4)]
    assert all(isinstance(failed.error, InvalidInputError) for failed in response.errors)
    assert response.errors[2].message == "unreadable"


def test_a_call_without_any_document_to_send_sends_nothing(gateway: FakeGateway, client: LycheeClient) -> None:
    response = client.rerank("q", ["", " "])
    assert [failed.index for failed in response.errors] == [0, 1]
    assert response.model is not None
    assert "/v1/rerank" not in gateway.paths()


def test_a_refusal_of_every_document_is_told_by_document(gateway: FakeGateway, client: LycheeClient) -> None:
    refused = refusal(400, "invalid_input", "no document could be ranked")
    refused.content["errors"] = [
        {"index": 0, "message": "unreadable", "type": "invalid_input"},
        {"index": 1, "message": "NaN", "type": "invalid_output"},
        {"index": 2, "message": "refused", "type": "model_failed"},
    ]
    gateway.routes["POST /v1/rerank"] = refused
    response = client.rerank("q", ["a", "b", "c"])
    kinds = [type(failed.error) for failed in response.errors]
    assert (len(response), kinds) == (0, [InvalidInputError, InvalidOutputError, RequestRejectedError])
    del refused.content["errors"][1:]
    with pytest.raises(InvalidInputError, match="unreadable"):
        client.score("q", "a")


@pytest.mark.parametrize(
    ("refused", "expected"),
    [
        (refusal(400, "invalid_input"), InvalidInputError),
        (refusal(400, "invalid_request"), ConfigurationError),
        (refusal(413, "too_large"), RequestRejectedError),
        (refusal(422, "invalid_shape"), RequestRejectedError),
        (refusal(429, "too_busy"), ServerOverloadedError),
        (refusal(429, "busy"), ServerOverloadedError),
        (refusal(500, "internal_error"), ServerError),
        (refusal(502, "model_failed"), InferenceError),
        (refusal(502, "invalid_output"), InvalidOutputError),
        (refusal(502, "bad_answer"), ContractError),
        (refusal(503, "unavailable"), ModelNotReadyError),
        (refusal(503, "stopping"), ConnectionFailedError),
        (refusal(504, "timeout"), DeadlineExceededError),
        (Answer({"error": {"message": "as OpenAI says it", "type": "too_busy"}}, 429), ServerOverloadedError),
        (Answer(b"<html>", 502), ConnectionFailedError),
        (Answer(b"", 504), DeadlineExceededError),
        (Answer(b"", 418), ServerError),
        (Answer(b"", 308, {"Location": "https://elsewhere"}), ServerError),
        (Answer(b"not JSON"), ContractError),
        (Answer({"results": [{"index": 5, "decision": "accept"}]}), ContractError),
    ],
)
def test_errors_have_the_classes_of_a_client_without_a_gateway(
    refused: Answer, expected: type[LycheeError], gateway: FakeGateway, client: LycheeClient
) -> None:
    gateway.routes["POST /v1/rerank"] = refused
    with pytest.raises(expected) as caught:
        client.score("the query", "the document")
    assert type(caught.value) is expected
    assert caught.value.request_id or refused.status == 200
    assert "the document" not in str(caught.value)
    if isinstance(caught.value, ServerError):
        assert caught.value.status == str(refused.status)


def test_the_advice_names_what_helps(gateway: FakeGateway, client: LycheeClient) -> None:
    for refused, advice in (
        (refusal(413, "too_large"), "--max-request-mb"),
        (Answer(b"", 308, {"Location": "https://elsewhere"}), "https://elsewhere"),
    ):
        gateway.routes["POST /v1/rerank"] = refused
        with pytest.raises(ServerError, match=advice):
            client.score("q", "a")


def test_a_busy_gateway_is_asked_again_when_it_says(gateway: FakeGateway) -> None:
    busy = iter([refusal(429, "too_busy", retry_after="1"), refusal(503, "unavailable", retry_after="0")])
    gateway.routes["POST /v1/rerank"] = lambda asked: next(busy, None) or rank(asked)
    with LycheeClient(gateway.url) as client:
        assert client.score("q", "a") == 0.5
    assert gateway.paths().count("/v1/rerank") == 3


def test_a_pause_beyond_the_deadline_is_not_waited_for(gateway: FakeGateway) -> None:
    gateway.routes["POST /v1/rerank"] = refusal(429, "too_busy", retry_after="60")
    with LycheeClient(gateway.url, timeout_s=20) as client, pytest.raises(ServerOverloadedError):
        client.score("q", "a")
    assert gateway.paths().count("/v1/rerank") == 1


@pytest.mark.parametrize(
    "options",
    [
        {"max_img_size": 384},
        {"embedding_cache": MemoryEmbeddingCache(2**20)},
        {"shared_memory": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_for_triton_alone_are_refused(options: dict[str, Any], gateway: FakeGateway) -> None:
    (name,) = options
    with LycheeClient(gateway.url, **options) as client, pytest.raises(ConfigurationError, match=name) as caught:
        client.score("q", "a")
    assert "HOST:8001" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("manifest", lambda client: client.manifest()),
        ("check_golden_pairs", lambda client: client.check_golden_pairs()),
        ("probe", lambda client: client.probe("text_encoder")),
        ("model_timings", lambda client: client.model_timings()),
    ],
)
def test_calls_that_only_triton_answers_are_refused(
    name: str, call: Callable[[LycheeClient], object], client: LycheeClient
) -> None:
    with pytest.raises(ConfigurationError, match=rf"{name}\(\) needs Triton's own address"):
        call(client)


def test_no_cache_of_its_own_suits_a_gateway(gateway: FakeGateway) -> None:
    with LycheeClient(gateway.url, embedding_cache=None) as client:
        cache = client.rerank("q", ["a"]).embedding_cache
    assert cache is not None
    assert (cache.hits, cache.misses) == (0, 1)


def test_readiness_and_status_are_the_gateways(gateway: FakeGateway, client: LycheeClient) -> None:
    assert client.is_ready()
    status = client.server_status()
    assert (status.live, status.ready, status.gateway, status.models[0].name) == (True, True, True, "fake-model")
    gateway.routes["GET /health/ready"] = Answer({"status": "unavailable", "reason": "waiting: no model"}, 503)
    assert not client.is_ready()
    assert client.server_status().models[0].reason == "waiting: no model"
    with pytest.raises(DeadlineExceededError, match="ready"):
        client.wait_until_ready(0.3)


def test_a_served_model_that_changes_is_told(gateway: FakeGateway, client: LycheeClient) -> None:
    client.score("q", "a")
    gateway.routes["GET /v1/models"] = Answer({"data": [{**MODEL, "id": "other"}]})
    gateway.routes["POST /v1/rerank"] = lambda asked: Answer(rank(asked).content | {"model": "other"})
    model = client.rerank("q", ["a"]).model
    assert model is not None
    assert model.model_id == "other"


def test_an_openai_server_is_not_taken_for_a_gateway(gateway: FakeGateway, client: LycheeClient) -> None:
    gateway.routes["GET /v1/models"] = Answer({"object": "list", "data": [{"id": "gpt", "owned_by": "vllm"}]})
    with pytest.raises(ContractError, match="a gateway of lychee-rerank"):
        client.score("q", "a")


def test_a_cancelled_call_hangs_up(gateway: FakeGateway) -> None:
    reached, gone = threading.Event(), threading.Event()

    def hold(asked: Asked) -> Answer:
        reached.set()
        gone.wait(20)
        return rank(asked)

    gateway.routes["POST /v1/rerank"] = hold

    async def cancel() -> int:
        async with AsyncLycheeClient(gateway.url) as client:
            task = asyncio.create_task(client.score("q", "a"))
            await asyncio.to_thread(reached.wait, 20)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            left = client._transport._current._flights.count  # type: ignore[attr-defined]
            gone.set()
            return int(left)

    assert asyncio.run(cancel()) == 0


def test_a_response_is_iterated_indexed_and_counted(client: LycheeClient) -> None:
    response = client.rerank("q", ["a", "bbb", "cc"])
    assert [result.index for result in response] == [1, 2, 0]
    assert response[0] is response.results[0]
    assert response[-1].index == 0
    assert response[:2] == response.results[:2]
    assert len(response) == 3
    empty = client.rerank("q", [])
    assert (len(empty), bool(empty)) == (0, True)


def test_content_stands_in_no_repr() -> None:
    from lychee_client.transports.base import JsonRequest

    request = JsonRequest("POST", "/v1/rerank", json.dumps({"query": "the query"}).encode(), {"x-api-key": KEY})
    assert "the query" not in repr(request)
    assert KEY not in repr(request)


IN_EXPERIMENT = {"ranking_id": "r-1", "experiment": {"name": "shop", "arm": "one"}}


def test_the_user_is_sent_and_the_ranking_comes_back(gateway: FakeGateway, client: LycheeClient) -> None:
    assert (client.rerank("q", ["a"]).ranking_id, "user" in sent(gateway)) == (None, False)
    gateway.routes["POST /v1/rerank"] = lambda asked: Answer({**rank(asked).content, **IN_EXPERIMENT})
    response = client.rerank("q", ["a"], user="anna")
    assert sent(gateway)["user"] == "anna"
    assert (response.ranking_id, response.experiment) == ("r-1", ExperimentArm("shop", "one"))


@pytest.mark.parametrize("is_async", [False, True])
def test_feedback_goes_to_the_gateway(gateway: FakeGateway, is_async: bool) -> None:
    gateway.routes["POST /v1/feedback"] = Answer({"accepted": 2, "known": True, "warnings": []})
    events: list[FeedbackEvent] = [{"type": "click", "index": 3, "id": "e"}, {"type": "dwell", "dwell_s": 1.5}]

    async def tell() -> None:
        async with AsyncLycheeClient(gateway.url, api_key=KEY) as client:
            await client.feedback("r-1", events)

    if is_async:
        asyncio.run(tell())
    else:
        with LycheeClient(gateway.url, api_key=KEY) as client:
            client.feedback("r-1", events)
    assert (gateway.asked[-1].path, gateway.asked[-1].headers["x-api-key"]) == ("/v1/feedback", KEY)
    assert gateway.asked[-1].body == {"ranking_id": "r-1", "events": events}


def test_feedback_that_is_refused_says_why(gateway: FakeGateway, client: LycheeClient) -> None:
    gateway.routes["POST /v1/feedback"] = refusal(404, "no_experiment", "no experiment runs here")
    with pytest.raises(RequestRejectedError, match="no experiment runs here"):
        client.feedback("r-1", [{"type": "click"}])


def test_triton_itself_runs_no_experiment() -> None:
    with LycheeClient(transport=FakeTransport()) as client:
        with pytest.warns(LycheeWarning, match="user is ignored: only a gateway runs experiments"):
            assert client.rerank("q", ["a"], user="anna").experiment is None
        with pytest.raises(ConfigurationError, match=r"feedback\(\) needs a gateway"):
            client.feedback("r-1", [{"type": "click"}])


def test_the_model_of_an_answer_is_the_one_that_scored(gateway: FakeGateway, client: LycheeClient) -> None:
    """The gateway got another export of the same name and revision between two calls."""

    def serve(version: int, default: str) -> None:
        model = {**MODEL, "version": version, "reads_instruction": True, "default_instruction": default}
        model["artifacts"] = {"tokenizer": f"{version:064x}"}
        gateway.routes["GET /v1/models"] = Answer({"data": [model]})
        gateway.routes["POST /v1/rerank"] = lambda asked: Answer({**rank(asked).content, "model_version": version})

    serve(1, "Judge.")
    first = client.rerank("q", ["a"])
    serve(2, "Judge.")
    second = client.rerank("q", ["a"])
    assert [response.model_version for response in (first, second)] == [1, 2]
    assert [response.model.artifacts["tokenizer"][-1] for response in (first, second) if response.model] == ["1", "2"]
    assert gateway.paths().count("/v1/rerank") == 2
    serve(3, "Judge well.")
    third = client.rerank("q", ["a"])
    assert (third.model_version, third.instruction) == (3, "Judge well.")
    asked = [asked.body["instruction"] for asked in gateway.asked if asked.path == "/v1/rerank"]
    assert asked[2:] == ["Judge.", "Judge well."]  # the instruction of the model before, and so again
