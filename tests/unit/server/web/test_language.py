"""The texts of the page, and the choice of its language."""

from __future__ import annotations

import gradio as gr
import pytest
from lychee_server.web.language import LANGUAGES, Words, choose_language, load_texts, placeholders


@pytest.fixture
def words() -> Words:
    return Words(gr.Radio(["en", "zh"], render=False))


def test_both_languages_have_the_same_texts_with_the_same_placeholders() -> None:
    texts = load_texts()
    assert texts["en"].keys() == texts["zh"].keys()
    for key, text in texts["en"].items():
        assert placeholders(text) == placeholders(texts["zh"][key]), key
        assert text.strip(), key
        assert texts["zh"][key].strip(), key


def test_values_are_escaped_in_html_and_plain_in_text(words: Words) -> None:
    name = "<b>.png"
    assert "<b>" in words.say("page.error_query_image", "zh", name=name)
    markup = words.both("page.error_query_image", name=name)
    assert "<b>" not in markup
    assert markup.count("&lt;b&gt;.png") == len(LANGUAGES)


@pytest.mark.parametrize(
    ("query", "header", "language"),
    [
        (None, "", "en"),
        (None, "zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        (None, "en-US,en;q=0.9,zh;q=0.8", "en"),
        (None, "fr, zh;q=0.4, en;q=0.7", "en"),
        (None, "fr;q=x,,;q=", "en"),
        ("zh", "en", "zh"),
        ("zh-TW", "", "zh"),
        ("<script>", "zh", "en"),
    ],
)
def test_the_language_comes_from_the_url_then_from_the_browser(query: str | None, header: str, language: str) -> None:
    assert choose_language(query, header) == language


def test_a_page_starts_with_the_texts_of_its_language(words: Words) -> None:
    box = gr.Textbox(label=words("score.query_text"), render=False)
    words.bind(box, "score.query_text")
    words.bind(box, "score.query_placeholder", "placeholder")
    entries = [
        {"id": box._id, "props": {"label": "", "lines": 1}},
        {"id": words.language._id, "props": {"value": "en"}},
    ]
    words.translate(entries, "zh")
    assert entries[0]["props"] == {"label": "文本", "placeholder": "要找什么", "lines": 1}
    assert entries[1]["props"] == {"value": "zh"}
