"""Scores, rankings and errors as HTML."""

from __future__ import annotations

import html
import json
import re

import gradio as gr
import pytest
from lychee_client import (
    POLICIES,
    DeadlineExceededError,
    DocumentError,
    InvalidInputError,
    RerankResponse,
    RerankResult,
    Text,
    Timings,
)
from lychee_server.gateway.limits import TooBusyError
from lychee_server.gateway.service_answer import ServiceAnswer
from lychee_server.web.inputs import Item, Loaded
from lychee_server.web.language import Words
from lychee_server.web.problems import PageError, render_alert
from lychee_server.web.rerank_result import render_ranking
from lychee_server.web.score_result import render_result

HOSTILE = "<script>alert(1)</script>\"'&"


@pytest.fixture
def words() -> Words:
    return Words(gr.Radio(["en", "zh"], render=False))


def make_answer(*scores: float, errors: tuple[DocumentError, ...] = ()) -> ServiceAnswer:
    results = tuple(
        RerankResult(index, score, 0.0, "accept", "text", truncated=True, tokens=3)
        for index, score in enumerate(scores)
    )
    return ServiceAnswer(RerankResponse(results, errors, Timings(total_ms=1.5), warnings=(HOSTILE,)), "id-1")


def load(text: str) -> Loaded:
    return Loaded(Item(text), Text(text), None)


def test_a_ranking_escapes_what_users_entered_and_keeps_it_whole_for_the_downloads(words: Words) -> None:
    error = DocumentError(1, HOSTILE, InvalidInputError(HOSTILE))
    long = HOSTILE * 100
    markup = render_ranking(
        words, make_answer(0.1 + 0.2, errors=(error,)), load("q"), [load(long), load(HOSTILE)], POLICIES["balanced"]
    )
    assert "<script" not in markup
    data = json.loads(html.unescape(re.search(r'data-results="([^"]*)"', markup)[1]))
    assert data["results"][0]["text"] == long
    assert data["results"][0]["relevance_score"] == 0.1 + 0.2
    assert data["errors"] == [{"index": 1, "message": HOSTILE, "text": HOSTILE, "file": None}]
    assert f'data-score="{0.1 + 0.2!r}"' in markup


def test_a_ranking_counts_decisions_and_tells_that_a_text_was_cut_off(words: Words) -> None:
    markup = render_ranking(words, make_answer(0.9, 0.8), load("q"), [load("a"), load("b")], POLICIES["strict"])
    assert re.search(r'data-count="accept">2<', markup)
    assert words.both("page.yes_truncated") in markup
    assert 'data-accept="0.75" data-review="0.75"' in markup


def test_the_parts_of_a_pair_are_compared_where_it_has_two(words: Words) -> None:
    assert words.both("score.why") not in render_result(words, make_answer(0.9), POLICIES["balanced"])
    markup = render_result(words, make_answer(0.9, 0.2, 0.8), POLICIES["balanced"])
    assert words.both("score.why_image_more") in markup
    error = DocumentError(2, "no", InvalidInputError("no"))
    markup = render_result(words, make_answer(0.9, 0.2, errors=(error,)), POLICIES["balanced"])
    assert words.both("score.why_impossible") in markup


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TooBusyError("busy", retry_after_s=7), "请在 7 秒后重试"),
        (DeadlineExceededError("late"), "处理时间超过网关的限制"),
        (InvalidInputError(HOSTILE), "无法使用此输入"),
        (PageError("rerank.error_too_many", count=5, most=4), "单次请求最多 4 个"),
    ],
)
def test_an_error_says_in_both_languages_what_to_do(words: Words, error: Exception, expected: str) -> None:
    markup = render_alert(words, error)
    assert expected in markup
    assert 'role="alert"' in markup
    assert "<script" not in markup


def test_an_unexpected_error_is_logged_and_not_shown(words: Words, caplog: pytest.LogCaptureFixture) -> None:
    markup = render_alert(words, RuntimeError("/secret/path"))
    assert "/secret/path" not in markup
    assert "/secret/path" in caplog.text
