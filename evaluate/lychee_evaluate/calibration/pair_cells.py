"""What the cells of one pair say, by the meaning of their columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from lychee_evaluate.tables.cell_values import parse_label, parse_number
from lychee_evaluate.tables.column_names import match_columns
from lychee_evaluate.tables.message import Message, RowError

_SHOWN_CHARACTERS: Final = 80


def expand(cells: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the cells of each document, where a row of JSON lines lists several."""
    documents = cells.get("documents")
    if not isinstance(documents, list) or not documents:
        yield dict(cells)
        return
    for document in documents:
        if not isinstance(document, dict):
            yield {**cells, "text": document}
            continue
        meanings = match_columns(list(document))
        own = {meaning: value for meaning, value in zip(meanings, document.values(), strict=True) if meaning}
        yield {**cells, **own}


def take_text(cells: Mapping[str, Any], column: str) -> str | None:
    """Return a text, or None where there is none.

    Raises:
        RowError: It is something else, or no whole text.
    """
    value = cells.get(column)
    if value is None:
        return None
    if isinstance(value, Message):
        raise RowError(value.kind, **value.values)
    if not isinstance(value, str):
        raise RowError("not_text", column=column, value=repr(value)[:_SHOWN_CHARACTERS])
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RowError("half_character", column=column, reason=error.reason) from error
    return value.strip() or None


def take_label(cells: Mapping[str, Any]) -> bool | None:
    """Return what `relevant` says, or None where it is empty.

    Raises:
        RowError: It says neither yes nor no.
    """
    value = cells.get("relevant")
    if isinstance(value, Message):
        raise RowError(value.kind, **value.values)
    try:
        return parse_label(value)
    except ValueError as error:
        raise RowError("bad_label", value=repr(value)[:_SHOWN_CHARACTERS]) from error


def take_score(cells: Mapping[str, Any], *, decimal_comma: bool) -> float | None:
    """Return `relevance_score`, or None where there is none in [0, 1]: whoever needs it says so."""
    score = parse_number(cells.get("relevance_score"), decimal_comma=decimal_comma)
    return score if score is not None and 0 <= score <= 1 else None
