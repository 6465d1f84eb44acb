"""The routes on the fake transport: shapes, statuses, errors that quote nothing."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.cross_encoder import PATCHES_MANIFEST
from fakes.dual_encoder import FakeTransport
from fakes.gateway import HOST, serve
from fastapi.testclient import TestClient
from lychee_client import (
    ConnectionFailedError,
    ContractError,
    DeadlineExceededError,
    InferenceError,
    ModelNotReadyError,
    ModelTimings,
    RerankResult,
    ServerOverloadedError,
    Timings,
)
from lychee_client.transports.base import InferRequest, InferResponse, Request
from lychee_server.gateway.answer_schemas import CallTimings, RankedDocument, ScoreAnswer, ServerTimings
from lychee_server.gateway.app import create_app
from lychee_server.gateway.limits import TooBusyError
from lychee_server.gateway.request_schemas import PIXEL
from lychee_server.gateway.service import Service
from lychee_server.gateway.settings import GatewaySettings
from starlette.responses import Response

CALL = {"query": "aaaa", "documents": ["aaaa", "bbbb"]}
ERROR_KEYS = {"message", "detail", "type", "param", "request_id", "error"}


@pytest.fixture(autouse=True)
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LYCHEE_CACHE_DIR", str(tmp_path))


@pytest.fixture
def client() -> Iterator[TestClient]:
    with serve() as client:
        yield client


def fail_documents(error: Callable[[], Exception]) -> FakeTransport:
    def intercept(request: Request) -> None:
        if isinstance(request, InferRequest) and request.model_name == "text_encoder":
            raise error()

    return FakeTransport(intercept)


def test_an_answer_has_every_field_of_the_clients_result() -> None:
    fields = {field.name for field in dataclasses.fields(RerankResult)}
    assert set(RankedDocument.model_fields) == fields
    of_a_ranking = {"index", "below_threshold", "document", "chunk", "relevant_spans", "spans_truncated"}
    assert set(ScoreAnswer.model_fields) > fields - of_a_ranking
    assert set(CallTimings.model_fields) == {field.name for field in dataclasses.fields(Timings)}
    assert set(ServerTimings.model_fields) == {field.name for field in dataclasses.fields(ModelTimings)}


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
def test_rerank_answers_the_shape_that_vendors_clients_read(client: TestClient, path: str) -> None:
    answer = client.post(path, json=CALL, headers={"x-request-id": "mine"})
    body = answer.json()
    assert answer.status_code == 200
    assert set(body) == {"id", "object", "model", "results", "errors", "warnings", "query", "usage", "timings", "meta"}
    assert body["id"] == answer.headers["x-request-id"] == "mine"
    assert body["object"] == "rerank"
    assert [result["index"] for result in body["results"]] == [0, 1]
    assert set(body["results"][0]) == {
        "index",
        "relevance_score",
        "logit",
        "decision",
        "modality",
        "truncated",
        "tokens",
        "below_threshold",
    }
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] > 0
    assert body["query"] == {"modality": "text", "truncated": False, "tokens": 13}
    assert body["meta"] == {
        "api_version": {"version": "2"},
        "billed_units": {"search_units": 1},
        "tokens": {"input_tokens": body["usage"]["total_tokens"], "output_tokens": 0},
    }


def test_documents_come_back_as_they_were_sent(client: TestClient) -> None:
    documents: list[Any] = [
        "a",
        {"image": PIXEL},
        {"text": "t", "image": PIXEL},
        {"content": [{"type": "text", "text": "c"}]},
    ]
    body = client.post("/v1/rerank", json={"query": "q", "documents": documents, "return_documents": True}).json()
    returned = {result["index"]: result["document"] for result in body["results"]}
    assert returned == {0: {"text": "a"}, 1: documents[1], 2: documents[2], 3: documents[3]}
    assert body["usage"]["images"] == 2


def test_relevant_spans_are_sentences_of_the_results(client: TestClient) -> None:
    text = "Zzz zzz. 👨\u200d👩\u200d👧 小猫喜欢晒太阳。它们怕冷！"
    documents = [{"text": text, "image": PIXEL}, {"image": PIXEL}, ""]
    call = {"query": "aaaa", "documents": documents, "relevant_spans": {"mode": "enabled", "threshold": 0}}
    body = client.post("/v2/rerank", json=call).json()
    results = {result["index"]: result for result in body["results"]}
    spans = results[0]["relevant_spans"]
    assert set(spans[0]) == {"start", "end", "score", "logit"}
    found = {text[span["start"] : span["end"]] for span in spans}
    assert found == {"Zzz zzz.", "👨\u200d👩\u200d👧 小猫喜欢晒太阳。", "它们怕冷！"}
    assert results[0]["spans_truncated"] is False
    assert not {"relevant_spans", "spans_truncated"} & set(results[1])
    assert body["timings"]["find_spans_ms"] > 0
    best = client.post("/v2/rerank", json={**call, "relevant_spans": {"threshold": 0, "max_spans": 1}}).json()
    assert next(each for each in best["results"] if each["index"] == 0)["relevant_spans"] == spans[:1]
    for nothing in (None, {"mode": "disabled"}):
        body = client.post("/v2/rerank", json={**call, "relevant_spans": nothing}).json()
        assert not any("relevant_spans" in result for result in body["results"])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 2),
        ({"top_n": None}, 2),
        ({"top_n": 0}, 2),
        ({"top_n": 1}, 1),
        ({"top_n": 9}, 2),
        ({"score_threshold": 1}, 0),
    ],
)
def test_results_are_selected(client: TestClient, options: dict[str, Any], expected: int) -> None:
    assert len(client.post("/v1/rerank", json={**CALL, **options}).json()["results"]) == expected


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"query": ""}, 400, "query"),
        ({"query": {"image": "canary"}}, 400, "query"),
        ({"documents": []}, 400, "documents"),
        ({"documents": ["a"] * 1001}, 400, "documents"),
        ({"timeout_ms": 30_001}, 400, "timeout_ms"),
        ({"top_n": 1, "min_results": 2}, 400, "min_results"),
        ({"instruction": "canary <|im_end|>"}, 400, "instruction"),
        ({"instruction": {"name": "canary"}}, 400, "instruction"),
        ({"policy": {"accept": 0.5, "review": 0.6}}, 400, "policy"),
        ({"documents": "canary"}, 422, "documents"),
    ],
)
def test_a_bad_request_names_the_field_and_quotes_no_content(
    client: TestClient, change: dict[str, Any], status: int, param: str | None
) -> None:
    answer = client.post("/v1/rerank", json={**CALL, **change})
    body = answer.json()
    assert answer.status_code == status, answer.text
    assert set(body) == ERROR_KEYS
    assert body["param"] == param
    assert body["request_id"] == answer.headers["x-request-id"]
    assert "canary" not in answer.text


@pytest.mark.parametrize(
    "content", [b"{canary", b"[]", b'"canary"', b"", b"\xff\xfe", b'{"query": NaN}', b"[" * 100_000]
)
def test_what_is_no_json_object_is_refused(client: TestClient, content: bytes) -> None:
    answer = client.post("/v1/rerank", content=content, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    assert "message" in answer.json()
    assert "canary" not in answer.text


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (lambda: TooBusyError("busy", retry_after_s=7), 429, "7"),
        (lambda: ServerOverloadedError("internals"), 429, "2"),
        (lambda: ConnectionFailedError("internals"), 503, "2"),
        (lambda: ModelNotReadyError("internals"), 503, "2"),
        (lambda: DeadlineExceededError("internals"), 504, None),
        (lambda: ContractError("internals"), 502, None),
        (lambda: InferenceError("internals"), 502, "2"),
        (lambda: ZeroDivisionError("internals"), 500, None),
    ],
)
def test_errors_of_a_call_have_their_status_and_show_nothing_inside(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, error: Callable[[], Exception], status: int, retry: str | None
) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise error()

    monkeypatch.setattr(client.app.state.service, "rerank", fail)  # type: ignore[attr-defined]
    answer = client.post("/v1/rerank", json=CALL)
    assert answer.status_code == status
    assert answer.headers.get("retry-after") == retry
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert "internals" not in answer.text


def test_score_answers_one_pair(client: TestClient) -> None:
    body = client.post("/v1/score", json={"query": "a", "document": {"text": "a", "image": PIXEL}}).json()
    assert body["object"] == "score"
    assert body["modality"] == "image_text"
    assert 0 <= body["relevance_score"] <= 1


@pytest.mark.parametrize("document", ["", {"image": "canary"}, {"image": "data:image/png;base64,aGVsbG8="}, 7])
def test_a_document_that_cannot_be_scored_is_an_error(client: TestClient, document: Any) -> None:
    answer = client.post("/v1/score", json={"query": "a", "document": document})
    assert answer.status_code == 400
    assert answer.json()["param"] == "document"


def test_options_of_vendors_are_accepted_with_a_warning(client: TestClient) -> None:
    body = {**CALL, "rank_fields": ["text"], "priority": 5}
    assert len(client.post("/v2/rerank", json=body).json()["warnings"]) == 1


LONG = " ".join(f"word {number:03}" for number in range(70))


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({"max_tokens_per_doc": 20}, 20),
        ({"truncate_prompt_tokens": 20}, 20),
        ({"truncate_prompt_tokens": 20, "max_tokens_per_doc": 5}, 5),
        ({"truncate_prompt_tokens": -1, "max_tokens_per_doc": 0}, 53),
        ({"max_tokens_per_query": 2}, 53),
    ],
)
def test_limits_of_texts_are_kept(client: TestClient, fields: dict[str, int], tokens: int) -> None:
    body = client.post("/v1/rerank", json={"query": "abc", "documents": [LONG], **fields}).json()
    assert body["results"][0]["tokens"] == tokens + len("passage: ") + 2
    assert body["results"][0]["truncated"] is True
    assert "chunk" not in body["results"][0]
    assert body["query"]["truncated"] == ("max_tokens_per_query" in fields)
    assert len(body["warnings"]) == body["query"]["truncated"]


def test_without_truncation_what_is_too_long_is_an_error(client: TestClient) -> None:
    call = {"query": "abc", "documents": ["a", LONG], "truncation": False}
    body = client.post("/v1/rerank", json=call).json()
    assert [error["index"] for error in body["errors"]] == [1]
    assert f"has {len(LONG)} tokens, of which 53 fit" in body["errors"][0]["message"]
    answer = client.post("/v1/rerank", json={**call, "max_tokens_per_query": 2})
    assert answer.status_code == 400
    assert "query has 3 tokens, of which 2 fit" in answer.json()["message"]


@pytest.mark.parametrize(
    ("fields", "most"),
    [
        ({"chunking": True}, 10),
        ({"chunking": {}}, 10),
        ({"chunking": {"max_chunks_per_doc": 3, "overlap_tokens": 0}}, 3),
        ({"chunking": {"max_chunks_per_doc": 3}, "max_chunks_per_doc": 4}, 3),
        ({"max_chunks_per_doc": 2}, 2),
        ({"overlap_tokens": 8, "max_chunks_per_doc": 10_000}, 20),
        ({"chunking": False, "max_chunks_per_doc": 2}, 0),
        ({"chunking": None}, 0),
    ],
)
def test_long_document_is_ranked_by_its_best_chunk(client: TestClient, fields: dict[str, Any], most: int) -> None:
    text = f"{LONG} cat cat cat cat cat cat cat cat"
    body = client.post("/v1/rerank", json={"query": "cat", "documents": [text], **fields}).json()
    (result,) = body["results"]
    assert ("chunk" in result) == bool(most)
    assert result["truncated"] == (most < 20)
    if most == 20:
        assert "cat cat" in text[result["chunk"]["start"] : result["chunk"]["end"]]
    chunks = max(1, most)
    assert body["usage"]["total_tokens"] > min(len(text), chunks * 40)
    assert body["warnings"] == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens_per_doc", -1),
        ("truncate_prompt_tokens", -2),
        ("overlap_tokens", -1),
        ("max_chunks_per_doc", 0),
        ("chunking", {"overlap_tokens": -1}),
    ],
)
def test_limits_that_mean_nothing_are_refused(client: TestClient, field: str, value: Any) -> None:
    answer = client.post("/v1/rerank", json={**CALL, field: value})
    assert (answer.status_code, answer.json()["param"].split(".")[0]) == (422, field)


def test_instructions_are_listed_and_a_model_that_reads_none_says_so(client: TestClient) -> None:
    listed = {entry["name"]: entry for entry in client.get("/v1/instructions").json()["data"]}
    assert set(listed["search"]["texts"]) == {"en", "zh"}
    answer = client.post("/v1/rerank", json={**CALL, "instruction": {"name": "search", "language": "zh"}})
    assert "reads no instruction" in answer.json()["warnings"][0]


def test_an_instruction_that_changes_what_a_score_means_is_in_the_warnings_once() -> None:
    with serve(FakeTransport(manifest=PATCHES_MANIFEST)) as client:
        body = client.post("/v1/rerank", json={**CALL, "instruction": "Retrieve only perfect matches"}).json()
        named = client.post("/v1/rerank", json={**CALL, "instruction": {"name": "search"}}).json()
    (warning,) = body["warnings"]
    assert warning.startswith("the instruction changes what a score means ('only perfect'): ")
    assert named["warnings"] == []


def test_health_routes_while_the_server_is_away() -> None:
    transport = FakeTransport()
    transport.live = False
    with serve(transport) as client:
        assert client.get("/health/live").status_code == 200
        for path in ("/health", "/health/ready"):
            answer = client.get(path)
            assert answer.status_code == 503
            assert answer.json()["status"] == "unavailable"
            assert answer.json()["reason"]
        assert client.post("/v1/rerank", json=CALL).status_code == 503


def test_keys_are_wanted_and_metrics_count(client: TestClient) -> None:
    with serve(api_keys=("a-long-enough-key",)) as locked:
        assert locked.post("/v1/rerank", json=CALL).status_code == 401
        assert locked.post("/v1/rerank", json=CALL, headers={"x-api-key": "a-long-enough-key"}).status_code == 200
    client.post("/v1/rerank", json=CALL)
    text = client.get("/metrics").text
    labels = 'method="POST",modality="text",model="default",route="/v1/rerank",status="200"'
    assert f"lychee_gateway_requests_total{{{labels}}} 1.0" in text
    assert 'lychee_gateway_documents_sum{model="default",route="/v1/rerank"} 2.0' in text


def test_a_caller_who_hangs_up_cancels_the_call() -> None:
    settings = GatewaySettings(web=False)
    cancelled = asyncio.Event()

    async def main() -> None:
        service = Service(settings, transport=FakeTransport())
        app = create_app(settings, service=service)
        begun = asyncio.Event()

        async def never(*_: Any, **__: Any) -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        service.rerank = never  # type: ignore[assignment, method-assign]
        body = b'{"query": "a", "documents": ["b"]}'
        inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        inbox.put_nowait({"type": "http.request", "body": body, "more_body": False})

        async def send(message: Any) -> None:
            assert message.get("status", 499) == 499

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "path": "/v1/rerank",
            "raw_path": b"/v1/rerank",
            "query_string": b"",
            "root_path": "",
            "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())],
        }
        request = asyncio.create_task(app(scope, inbox.get, send))  # type: ignore[arg-type]
        await begun.wait()
        inbox.put_nowait({"type": "http.disconnect"})
        async with asyncio.timeout(5):
            await request
        assert cancelled.is_set()  # not only when the loop ends

    asyncio.run(main())


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/v1/score"])
def test_another_method_is_told_from_another_path_also_beside_the_page(path: str) -> None:
    async def page(scope: Any, receive: Any, send: Any) -> None:
        await Response(status_code=404)(scope, receive, send)

    values = GatewaySettings(web=False)
    app = create_app(values, service=Service(values, transport=FakeTransport()))
    app.mount("/", page)
    with TestClient(app, HOST) as client:
        answer = client.get(path)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json()["type"] == "method_not_allowed"


def test_results_come_before_what_they_cost(client: TestClient) -> None:
    assert list(client.post("/v1/rerank", json=CALL).json())[:4] == ["id", "object", "model", "results"]


def test_a_query_that_is_cut_off_is_told(client: TestClient) -> None:
    body = client.post("/v1/rerank", json={"query": "word " * 100, "documents": ["a"]}).json()
    assert body["query"] == {"modality": "text", "truncated": True, "tokens": 64}
    assert "the query is longer than the 64 tokens" in body["warnings"][0]
    assert body["usage"]["total_tokens"] == 64 + body["results"][0]["tokens"]


def test_a_data_url_in_a_plain_string_is_warned_about(client: TestClient) -> None:
    documents = ["a", PIXEL, {"text": PIXEL}, {"image": PIXEL}]
    first, second = client.post("/v1/rerank", json={"query": PIXEL, "documents": documents}).json()["warnings"][:2]
    assert "the text of the query is the data URL of an image" in first
    assert "the text of 2 of the documents is the data URL of an image" in second
    assert client.post("/v1/rerank", json={"query": "a", "documents": [{"image": PIXEL}]}).json()["warnings"] == []


def test_what_the_server_says_of_itself_is_not_told_to_callers() -> None:
    def intercept(request: Request) -> None:
        if isinstance(request, InferRequest) and request.model_name == "vision_encoder":
            raise InferenceError("Failed to increase the shared memory pool size for key 'lychee_0a1b_region_5'")

    with serve(FakeTransport(intercept)) as client:
        answer = client.post("/v1/rerank", json={"query": "a", "documents": ["a", {"image": PIXEL}]})
    assert "shared memory" not in answer.text
    assert "lychee_0a1b" not in answer.text


def test_a_lost_server_takes_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    transport = fail_documents(lambda: ModelNotReadyError("text_encoder is\nnot loaded"))
    with serve(transport) as client, caplog.at_level("WARNING"):
        caplog.clear()
        assert client.post("/v1/rerank", json=CALL).status_code == 503
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.exc_info is None
    assert record.fields["error_type"] == "ModelNotReadyError"
    assert record.fields["reason"].endswith("text_encoder is not loaded")  # the watcher may have noticed before
    assert "\n" not in record.fields["reason"]


@pytest.mark.parametrize("method", ["TRACE", "PUT", "HEAD", "OPTIONS"])
def test_paths_and_methods_that_are_not_served_are_told_in_the_documented_keys(method: str) -> None:
    with serve() as client:
        for path, status in (("/v1/rerank", 405), ("/nothing", 404)):
            answer = client.request(method, path)
            assert answer.status_code == status
            if method != "HEAD":
                assert set(answer.json()) == ERROR_KEYS


def test_several_images_are_ranked_counted_and_refused_with_their_document() -> None:
    documents = [{"text": "two", "images": [PIXEL, PIXEL]}, {"image": PIXEL}, {"images": [PIXEL] * 3}, "text"]
    with serve(FakeTransport(manifest=PATCHES_MANIFEST)) as client:
        body = client.post("/v1/rerank", json={"query": "q", "documents": documents, "return_documents": True}).json()
        assert sorted(result["index"] for result in body["results"]) == [0, 1, 2, 3]
        assert body["results"][-1]["index"] == 2
        returned = {result["index"]: result["document"] for result in body["results"]}
        assert returned[0] == documents[0]
        assert body["usage"]["images"] == 3
        (failed,) = body["errors"]
        assert (failed["index"], failed["type"]) == (2, "invalid_input")
        assert "--max-images 3" in failed["message"]
        score = client.post("/v1/score", json={"query": {"images": [PIXEL]}, "document": {"image": PIXEL}})
        assert score.json()["usage"]["images"] == 2


def test_model_that_gives_no_number_is_told_per_document_or_for_the_whole_call() -> None:
    def intercept(request: Request) -> InferResponse | None:
        if not isinstance(request, InferRequest) or request.model_name != "scoring_head_text":
            return None
        if np.ptp(request.inputs["query_embedding"]) == 0:  # a probe
            return None
        good = np.full((request.rows, 1), 0.5, np.float32)
        scores = good.copy()
        scores[-1] = np.nan  # of the last document
        return InferResponse({"relevance_score": scores, "logits": good})

    with serve(FakeTransport(intercept)) as client:
        body = client.post("/v1/rerank", json={"query": "q", "documents": [{}, "a", "b"]}).json()
        assert [result["index"] for result in body["results"]] == [1, 0, 2]
        assert [(failed["index"], failed["type"]) for failed in body["errors"]] == [
            (0, "invalid_input"),
            (2, "invalid_output"),
        ]
        assert "gave NaN as relevance_score" in body["errors"][1]["message"]
        for path, call in (
            ("/v1/rerank", {"query": "q", "documents": ["a"]}),
            ("/v1/score", {"query": "q", "document": "a"}),
        ):
            answer = client.post(path, json=call)
            assert (answer.status_code, answer.json()["type"]) == (502, "invalid_output")
        metrics = client.get("/metrics").text
    assert 'lychee_gateway_document_errors_total{model="default",reason="invalid_output"} 3.0' in metrics
    assert 'lychee_gateway_document_errors_total{model="default",reason="invalid_input"} 1.0' in metrics
