"""A dialect: a table of fields in, a table of fields out, and the same names in its errors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from lychee_client import RerankResult

from lychee_server.gateway.answer_schemas import RankedDocument, RerankAnswer, UnrankedDocument
from lychee_server.gateway.errors import RequestValueError

FLAG: Final[Mapping[Any, Any]] = {True: True, "true": True, "True": True, False: False, "false": False, "False": False}
# What is too long is cut unless it is refused, so true asks for what happens anyway.
TRUNCATION: Final[Mapping[Any, Any]] = {**FLAG, **dict.fromkeys((True, "true", "True"))}
LOWEST_LOGIT: Final = -100.0  # whose sigmoid is 0, and which clients' own sigmoids can still take
TEXT: Final[dict[str, Any]] = {"type": "string"}
TEXTS: Final[dict[str, Any]] = {"type": "array", "items": TEXT, "minItems": 1}
BOOLEAN: Final[dict[str, Any]] = {"type": "boolean"}
COUNT: Final[dict[str, Any]] = {"type": "integer", "minimum": 1}
INDEX: Final[dict[str, Any]] = {"type": "integer"}
NUMBER: Final[dict[str, Any]] = {"type": "number"}
USAGE: Final[dict[str, Any]] = {"type": "object"}

_REQUIRED: Final = frozenset({"query", "documents"})
_MAX_SHOWN_CHARACTERS: Final = 40


def shape(title: str, required: Mapping[str, Any], optional: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the JSON schema of an object."""
    properties = {**required, **(optional or {})}
    return {"type": "object", "title": title, "properties": properties, "required": list(required)}


def rows(properties: Mapping[str, Any], *optional: str) -> dict[str, Any]:
    """Return the JSON schema of a list of objects."""
    required = [name for name in properties if name not in optional]
    return {"type": "array", "items": {"type": "object", "properties": dict(properties), "required": required}}


@dataclass(frozen=True, eq=False, kw_only=True)
class Dialect:
    """How one vendor's clients ask, and what they read.

    Attributes:
        name: In the log.
        fields: The gateway's name of each field whose name differs.
        values: What each value of a field means; any other value is refused. None: what the gateway does anyway.
        shaping: Fields that only say how the answer looks.
        ignored: Fields without a meaning here, with the values that ask for nothing; with another value a field is left
            to the request's check, which warns of it under this name.
        arrange: What no table says, done to the gateway's request.
        answer: Makes the vendor's answer of the gateway's answer and what was sent.
        error: Makes the vendor's error of the gateway's error and its status.
        request: JSON schema of the request.
        response: JSON schema of the answer.
    """

    name: str
    answer: Callable[[Any, Mapping[str, Any]], Any]
    request: Mapping[str, Any]
    response: Mapping[str, Any]
    fields: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Mapping[Any, Any]] = field(default_factory=dict)
    shaping: frozenset[str] = frozenset()
    ignored: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    arrange: Callable[[dict[str, Any], Mapping[str, Any]], dict[str, Any]] | None = None
    error: Callable[[dict[str, Any], int], dict[str, Any]] | None = None

    def translate(self, sent: Mapping[str, Any]) -> dict[str, Any]:
        """Return the gateway's request; fields that are not known stay as they are.

        Raises:
            RequestValueError: A value means nothing in this dialect.
        """
        native: dict[str, Any] = {}
        for name in sorted(sent, key=self.fields.__contains__):  # a vendor's own name counts more than ours
            value = sent[name]
            ours = self.fields.get(name, name)
            meant = read_value(name, value, self.values[name]) if name in self.values else value
            is_nothing = _is_plain(meant) and meant in self.ignored.get(name, ())
            if name in self.shaping or is_nothing or (meant is None and ours not in _REQUIRED):
                continue
            native[ours] = meant
        return native if self.arrange is None else self.arrange(native, sent)

    def translate_error(self, error: dict[str, Any], status: int, sent: Mapping[str, Any]) -> dict[str, Any]:
        """Return an error that names the fields as they were sent."""
        names = self._names_back(sent)
        renamed = _rename(error, names)
        return renamed if self.error is None else self.error(renamed, status)

    def _names_back(self, sent: Mapping[str, Any]) -> dict[str, str]:
        """Return the sender's name of each of our fields; where a vendor has several, the one that was sent."""
        names: dict[str, str] = {}
        for theirs, ours in self.fields.items():
            if ours not in sent and (ours not in names or theirs in sent):
                names[ours] = theirs
        return names


def read_value(name: str, value: Any, meanings: Mapping[Any, Any]) -> Any:
    """Return what a value means; null means the default.

    Raises:
        RequestValueError: It means nothing.
    """
    if value is None:
        return None
    if _is_plain(value) and value in meanings:
        return meanings[value]
    seen = repr(value)
    shown = (
        seen if _is_plain(value) and len(seen) <= _MAX_SHOWN_CHARACTERS else f"a value of type {type(value).__name__}"
    )
    expected = " or ".join(str(each).lower() if isinstance(each, bool) else each for each in _spellings(meanings))
    raise RequestValueError(f"{name} is {shown}; expected {expected}", name, status=422, kind="invalid_shape")


def is_on(sent: Mapping[str, Any], name: str) -> bool:
    """Return whether a flag that `translate` has read is set."""
    return bool(FLAG.get(sent.get(name) or False))


def text_of(result: RankedDocument | UnrankedDocument) -> str | None:
    """Return the text of a document that comes back; None: it has none, or was not asked for."""
    text = (result.document or {}).get("text")
    return text if isinstance(text, str) else None


def logits(results: Sequence[RankedDocument | UnrankedDocument | RerankResult | None]) -> list[float]:
    """Return the results' logits; documents that could not be ranked get one below all others."""
    known = [None if result is None else result.logit for result in results]
    lowest = min([LOWEST_LOGIT, *(logit - 1 for logit in known if logit is not None)])
    return [lowest if logit is None else logit for logit in known]


def list_results(answer: RerankAnswer, *, score: str, text: str, raw: bool = False) -> list[dict[str, Any]]:
    """Return `index`, score and, where it comes back, text of each result, under a vendor's names.

    Args:
        answer: The gateway's answer.
        score: What the vendor calls the score.
        text: What the vendor calls the text, which is a string there.
        raw: Whether the scores are logits.
    """
    scores = logits(answer.results) if raw else [result.relevance_score for result in answer.results]
    return [
        {"index": result.index, score: value} | ({} if (shown := text_of(result)) is None else {text: shown})
        for result, value in zip(answer.results, scores, strict=True)
    ]


def _is_plain(value: Any) -> bool:
    return isinstance(value, (str, bool, int, float))


def _spellings(meanings: Mapping[Any, Any]) -> list[Any]:
    """Return the values worth naming: of a flag, true and false alone."""
    flags = [each for each in meanings if isinstance(each, bool)]
    return flags or list(meanings)


def _rename(value: Any, names: Mapping[str, str]) -> Any:
    """Return an error with other names of fields in its messages and params."""
    renamed = dict(value)
    for name in {"message", "detail"} & renamed.keys():
        renamed[name] = _rename_message(renamed[name], names)
    if isinstance(param := renamed.get("param"), str):
        first, dot, rest = param.partition(".")
        renamed["param"] = names.get(first, first) + dot + rest
    if isinstance(inner := renamed.get("error"), dict):
        renamed["error"] = _rename(inner, names)
    return renamed


def _rename_message(message: str, names: Mapping[str, str]) -> str:
    """Replace names of fields where they are no words: those with an underscore, at the beginning, and before `[`."""
    for ours, theirs in names.items():
        name = re.escape(ours)
        message = re.sub(
            rf"(?<![\w.]){name}(?!\w)" if "_" in ours else rf"^{name}(?!\w)|\b{name}(?=\[)", theirs, message
        )
    return message
