"""JSON bodies: read as `json.loads` reads them, and answers as pydantic writes them."""

from __future__ import annotations

import json

import pytest
from lychee_server.gateway.answer_schemas import HealthAnswer
from lychee_server.gateway.json_body import parse_json, render_json

CONTENTS = (
    b'{"query": "q", "documents": ["a", {"text": "\\u00e9", "image": null}], "top_n": 3, "score_threshold": 0.5}',
    b"[1, 2.5, 1e400, -0.0, 12345678901234567890123, true, null]",
    b'{"a": 1, "a": 2}',
    '{"a": "\ud83d\ude00 ü"}'.encode("utf-8", "surrogatepass").decode("utf-8", "replace").encode(),
    b'"\\ud800"',
    '{"query": "wide"}'.encode("utf-16"),
    b"[" * 300 + b"]" * 300,
)


@pytest.mark.parametrize("content", CONTENTS)
def test_every_body_is_read_as_before(content: bytes) -> None:
    assert parse_json(content) == json.loads(content)


@pytest.mark.parametrize("content", [b"{", b'{"a": }', b"\xff\xfe\xfd", b"[1,]"])
def test_what_is_no_json_has_the_same_error(content: bytes) -> None:
    with pytest.raises(ValueError) as expected:  # noqa: PT011 - whichever it is
        json.loads(content)
    with pytest.raises(type(expected.value)) as error:
        parse_json(content)
    assert str(error.value) == str(expected.value)


def test_answers_are_what_the_model_writes() -> None:
    answer = HealthAnswer(status="ok", latency_ms=1.5, reason=None)
    assert render_json(answer) == answer.model_dump_json(exclude_none=True).encode()
