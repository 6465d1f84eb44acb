"""The templates of the page's results."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import jinja2
import pytest
from lychee_server.web import markup
from lychee_server.web.language import Words
from lychee_server.web.markup import format_number, render

FOLDER = Path(markup.__file__).with_name("templates")
RESULTS = sorted(set(FOLDER.iterdir()) - {FOLDER / "parts.html.jinja"})  # that one is called by others


@pytest.fixture
def words() -> Words:
    return Words(SimpleNamespace())  # type: ignore[arg-type]


def test_values_are_escaped_and_texts_in_both_languages_are_not(words: Words) -> None:
    rendered = render("alert", words, key="page.error_unknown", values={}, detail="<b>\"'&")
    assert "&lt;b&gt;&#34;&#39;&amp;" in rendered
    assert words.both("page.error_unknown") in rendered


def test_a_text_for_an_attribute_is_plain_until_it_is_written(words: Words) -> None:
    name = words.joined("page.error_query_image", name='"')
    assert name.count('"') == 2
    assert " · " in name


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_a_template_that_is_not_given_what_it_names_fails(path: Path, words: Words) -> None:
    with pytest.raises(jinja2.UndefinedError):
        render(path.name.removesuffix(".html.jinja"), words)


@pytest.mark.parametrize(
    ("value", "spec", "expected"), [(0.25, ".1%", "25.0%"), (1234, ",", "1,234"), (None, "g", "–")]
)
def test_a_figure_that_is_not_there_is_a_dash(value: float | None, spec: str, expected: str) -> None:
    assert format_number(value, spec) == expected
