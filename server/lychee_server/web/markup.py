"""The page's results as HTML: Jinja writes what it is given, escaped, into the files of the folder templates."""

from __future__ import annotations

import functools

from jinja2 import Environment, PackageLoader, StrictUndefined

from lychee_server.web.language import Words


def render(name: str, words: Words, /, **values: object) -> str:
    """Return HTML.

    Args:
        name: The name of the template's file, without ".html.jinja".
        words: The texts of the page.
        values: The values of the other names in the template.

    Raises:
        jinja2.UndefinedError: The template names something that is not there.
    """
    return _load_templates().get_template(f"{name}.html.jinja").render(words=words, **values)


def format_number(value: float | None, spec: str) -> str:
    """Return a figure for people, a dash where there is none.

    Args:
        value: The figure.
        spec: Python's format, such as ".3f".
    """
    return "–" if value is None else format(value, spec)


@functools.cache
def _load_templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("lychee_server.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = format_number
    return environment
