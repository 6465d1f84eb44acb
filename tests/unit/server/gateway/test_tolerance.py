"""Tolerant in what it takes, exact in what it says: types, unknown names and names of models, as clients send them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fakes.gateway import serve
from fastapi.testclient import TestClient
from lychee_server.gateway.request_schemas import PIXEL

CALL: dict[str, Any] = {"query": "aaaa", "documents": ["aaaa", "bbbb", "cccc"]}
LONG = "x" * 5000


@pytest.fixture
def client() -> Iterator[TestClient]:
    with serve() as client:
        yield client


def ask(client: TestClient, path: str = "/v1/rerank", **change: Any) -> Any:
    content = json.dumps({**CALL, **change})  # NaN too
    return client.post(path, content=content, headers={"content-type": "application/json"})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"top_n": "2"}, 2),
        ({"top_n": 2.0}, 2),
        ({"top_n": "2.0"}, 2),
        ({"top_n": " 2 "}, 2),
        ({"score_threshold": "1"}, 0),
        ({"score_threshold": "1.0", "min_results": "1"}, 1),
        ({"return_documents": "true", "server_timings": "false", "strict": 1}, 3),
        ({"return_documents": 0, "priority": "5", "timeout_ms": "5000"}, 3),
        ({"policy": {"accept": "0.5", "review": None}, "instruction": {"name": "search", "language": None}}, 3),
        ({"model": "", "user": None, "foo": None}, 3),
        (dict.fromkeys(["model", "instruction", "policy", "priority", "timeout_ms", "server_timings", "top_n"]), 3),
        (dict.fromkeys(["score_threshold", "min_results", "return_documents", "strict", "rank_fields"]), 3),
    ],
)
def test_values_are_taken_as_json_clients_send_them(client: TestClient, change: dict[str, Any], expected: int) -> None:
    answer = ask(client, **change)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["results"]) == expected
    assert "x-lychee-ignored" not in answer.headers


@pytest.mark.parametrize(
    ("change", "param", "message"),
    [
        ({"top_n": -1}, "top_n", "top_n is -1; expected at least 0"),
        ({"top_n": "abc"}, "top_n", "top_n is 'abc'; expected a whole number"),
        ({"top_n": 2.5}, "top_n", "top_n is 2.5; expected a whole number"),
        ({"top_n": "2.5"}, "top_n", "top_n is '2.5'; expected a whole number"),
        ({"top_n": True}, "top_n", "top_n is true; expected a whole number"),
        ({"top_n": [1, 2]}, "top_n", "top_n is an array of 2; expected a whole number"),
        ({"top_n": float("nan")}, "top_n", "top_n is nan; expected a finite number"),
        ({"top_n": LONG}, "top_n", f"top_n is '{'x' * 40}'...; expected a whole number"),
        (
            {"top_n": "\ud800\n"},
            "top_n",
            "top_n is '\\ud800\\n'; expected no lone surrogate",
        ),
        ({"min_results": {}}, "min_results", "min_results is an object; expected a whole number"),
        ({"score_threshold": 1.5}, "score_threshold", "score_threshold is 1.5; expected at most 1"),
        ({"score_threshold": "NaN"}, "score_threshold", "score_threshold is 'NaN'; expected a finite number"),
        ({"score_threshold": True}, "score_threshold", "score_threshold is true; expected a number"),
        (
            {"score_threshold": 10**400},
            "score_threshold",
            "score_threshold is a number of more than 40 digits; expected a number",
        ),
        ({"timeout_ms": 0}, "timeout_ms", "timeout_ms is 0; expected more than 0"),
        ({"return_documents": "canary"}, "return_documents", "return_documents is 'canary'; expected true or false"),
        ({"return_documents": 2}, "return_documents", "return_documents is 2; expected true or false"),
        ({"model": 7}, "model", "model is 7; expected a string"),
        ({"priority": "low"}, "priority", "priority is 'low'; expected 'interactive' or 'bulk' or a whole number"),
        (
            {"policy": "lenient"},
            "policy",
            "policy is 'lenient'; expected 'strict', 'balanced' or 'exploratory' or an object",
        ),
        ({"policy": {"accept": 7}}, "policy.accept", "policy.accept is 7; expected at most 1"),
        ({"policy": {}}, "policy.accept", "policy.accept is missing"),
        ({"instruction": 5}, "instruction", "instruction is 5; expected a string or an object"),
        (
            {"instruction": {"name": "search", "language": "fr"}},
            "instruction.language",
            "instruction.language is 'fr'; expected 'en' or 'zh'",
        ),
        ({"documents": "canary"}, "documents", "documents is a string of 6 characters; expected an array"),
        ({"documents": None}, "documents", "documents is null; expected an array"),
        ({"documents": {"0": "canary"}}, "documents", "documents is an object; expected an array"),
    ],
)
def test_a_wrong_value_is_told_with_its_field_and_what_was_expected(
    client: TestClient, change: dict[str, Any], param: str, message: str
) -> None:
    answer = ask(client, **change)
    assert answer.status_code == 422, answer.text
    assert answer.json()["param"] == param
    assert answer.json()["message"] == f"{message}; see /docs"


def test_a_field_that_is_missing_is_told(client: TestClient) -> None:
    for path, missing in (("/v1/rerank", "documents"), ("/v1/score", "document")):
        answer = client.post(path, json={"query": "aaaa"})
        assert (answer.status_code, answer.json()["message"]) == (422, f"{missing} is missing; see /docs")


def test_unknown_fields_and_keys_are_ignored_and_told_once(client: TestClient) -> None:
    documents = [{"text": "aaaa", "id": n, "metadata": {"a": 1}, "title": None} for n in range(3)]
    documents.append({"content": [{"type": "text", "text": "b", "cache_control": {"a": 1}}], "id": 9})
    body = {"documents": documents, "foo,": 1, "policy": {"accept": 0.5, "b\nar": 1}, "return_documents": True}
    answer = ask(client, **body)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["results"]) == 4
    assert answer.json()["errors"] == []
    assert answer.json()["warnings"] == [
        "fields that are not known are ignored: 'foo,', 'policy.b\\nar'; see /docs",
        "keys of query or documents that are not known are ignored: 'id', 'metadata', 'cache_control'",
    ]
    assert answer.headers["x-lychee-warnings"] == "2"
    assert answer.headers["x-lychee-ignored"] == "foo%2C, policy.b%0Aar, id, metadata, cache_control"
    assert answer.json()["results"][0]["document"] == documents[0]
    metrics = client.get("/metrics").text
    for what, count in (("field", 1), ("key", 1), ("model", 0)):
        assert f'lychee_gateway_ignored_total{{what="{what}"}} {count}.0' in metrics
    assert "foo" not in metrics


def test_a_call_without_anything_unknown_has_no_header(client: TestClient) -> None:
    answer = ask(client)
    assert answer.json()["warnings"] == []
    assert not [name for name in answer.headers if name.startswith("x-lychee")]


def test_of_very_many_unknown_names_a_few_are_told(client: TestClient) -> None:
    names = {f"{n}{LONG}\ud800": 1 for n in range(500)}
    answer = ask(client, documents=[{"text": "aaaa", **names}], **names)
    assert answer.status_code == 200
    assert all(warning.count("...") == 10 and len(warning) < 700 for warning in answer.json()["warnings"])
    assert " and more" in answer.json()["warnings"][0]
    assert len(answer.headers["x-lychee-ignored"]) < 1000


def test_fields_of_vendors_without_a_meaning_here_say_why(client: TestClient) -> None:
    warnings = ask(client, user="u", return_len=True, raw_scores=False).json()["warnings"]
    assert sorted(warnings) == [
        "raw_scores is ignored: every result has its logit",
        "return_len is ignored: every result has its tokens",
        "user is ignored: callers are not told apart",
    ]


def test_unknown_names_are_errors_where_the_gateway_says_so() -> None:
    with serve(strict_fields=True) as client:
        for change, param in (({"canary": 1}, "canary"), ({"policy": {"accept": 0.5, "b": 1}}, "policy.b")):
            answer = ask(client, **change)
            assert (answer.status_code, answer.json()["param"]) == (422, param)
            assert f"the field '{param}' is not known" in answer.json()["message"]
        body = ask(client, documents=["aaaa", {"text": "bbbb", "id": 1}], user="u").json()
        assert body["errors"][0]["index"] == 1
        assert "the keys 'id' are not known" in body["errors"][0]["message"]


def test_images_and_texts_come_in_the_forms_that_others_send(client: TestClient) -> None:
    base64 = PIXEL.partition(",")[2]
    documents = [
        {"image": base64},
        {"image": PIXEL},
        {"image_url": PIXEL},
        {"image_url": {"url": base64}},
        {"text": "aaaa", "image_url": PIXEL, "title": "t"},
        {"content": [{"type": "input_text", "text": "aaaa"}, {"type": "input_image", "image_url": PIXEL}]},
    ]
    body = ask(client, query={"image": base64}, documents=documents).json()
    assert body["errors"] == []
    logits = {result["index"]: result["logit"] for result in body["results"]}
    assert logits[0] == logits[1] == logits[2] == logits[3]
    assert logits[4] == logits[5]


@pytest.mark.parametrize("model", ["fake", None, "", " ", "rerank-v3.5", "house"])
def test_the_models_names_are_taken(model: str | None) -> None:
    with serve(served_model_names=("rerank-v3.5", "house"), refuse_other_models=True) as client:
        body = ask(client, model=model).json()
        assert (body["model"], body["warnings"]) == ("fake", [])


def test_another_model_is_warned_about_or_refused(client: TestClient) -> None:
    answer = ask(client, model="jina-reranker-m0")
    assert answer.json()["model"] == "fake"
    assert answer.json()["warnings"] == ["the model 'jina-reranker-m0' is not served here; fake answered"]
    assert 'lychee_gateway_ignored_total{what="model"} 1.0' in client.get("/metrics").text
    score = client.post("/v1/score", json={"query": "a", "document": "a", "model": "other", "foo": 1})
    assert len(score.json()["warnings"]) == 2
    with serve(refuse_other_models=True, served_model_names=("house",)) as strict:
        answer = ask(strict, model=LONG)
    assert (answer.status_code, answer.json()["type"], answer.json()["param"]) == (404, "model_not_found", "model")
    assert "...' is" not in answer.json()["message"]
    assert "is not served; expected one of fake, house, or leave model out" in answer.json()["message"]


def test_every_name_of_the_model_is_listed() -> None:
    with serve(served_model_names=("house", "fake")) as client:
        listed = client.get("/v1/models").json()["data"]
    assert [(entry["id"], entry["root"]) for entry in listed] == [("fake", "fake"), ("house", "fake")]


@pytest.mark.parametrize(
    ("status", "kind", "family", "path", "call"),
    [
        (400, "invalid_request", "invalid_request_error", "/v1/rerank", {**CALL, "documents": []}),
        (422, "invalid_shape", "invalid_request_error", "/v1/rerank", {**CALL, "top_n": "abc"}),
        (404, "not_found", "not_found_error", "/v1/nothing", CALL),
        (405, "method_not_allowed", "invalid_request_error", "/v1/models", CALL),
        (403, "forbidden", "permission_error", "/v1/rerank", CALL),
        (401, "unauthorized", "authentication_error", "/v1/rerank", CALL),
    ],
)
def test_every_error_has_openais_form_too(status: int, kind: str, family: str, path: str, call: Any) -> None:
    headers = {"origin": "http://evil.example"} if status == 403 else {}
    with serve(api_keys=("k",) if status == 401 else ()) as client:
        answer = client.post(path, json=call, headers=headers)
    body = answer.json()
    assert (answer.status_code, body["type"]) == (status, kind)
    assert body["error"] == {"message": body["message"], "type": family, "code": kind, "param": body["param"]}


def test_a_model_is_described_under_every_name_that_calls_may_use() -> None:
    with serve() as client:
        served = client.get("/v1/models").json()["data"][0]
        assert client.get("/v1/models/any-uid").json() == served
    with serve(refuse_other_models=True) as client:
        assert client.get("/v1/models/any-uid").status_code == 404
        assert client.get(f"/v1/models/{served['id']}").json() == served
