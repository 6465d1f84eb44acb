"""What is wrong with the shape of a request: pydantic's errors as one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from lychee_server.gateway.excerpts import excerpt_of

Problem = Mapping[str, Any]

CONTENT_FIELDS: Final = frozenset({"query", "documents", "document", "user"})  # never quoted
# What was expected, by the type of pydantic's error.
_EXPECTED: Final = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_type": "a whole number",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "list_type": "an array",
    "literal_error": "{expected}",
    "model_attributes_type": "an object",
    "model_type": "an object",
    "string_type": "a string",
    "string_unicode": "no lone surrogate",
    "value_error": "{error}",
}
_MEMBERS: Final = frozenset({"str", "int", "float", "bool", "list", "dict", "any"})  # what pydantic calls types


def describe_shape(problems: Sequence[Problem]) -> tuple[str, str | None]:
    """Return a message that names field, value and what was expected, and the field, of the first field that is wrong.

    Args:
        problems: pydantic's errors; their locations begin with "body" or "query".
    """
    first = problems[0]
    if first["type"] == "json_invalid":
        return "the body is not valid JSON", None
    if first["loc"] == ("body",):
        return "the body is no JSON object; send one, with the header content-type: application/json", None
    # A field of several types has a problem for each; what lies deepest is of the type that was meant.
    same = [problem for problem in problems if problem["loc"][:2] == first["loc"][:2]]
    depth = max(len(_path(problem["loc"])) for problem in same)
    meant = [problem for problem in same if len(_path(problem["loc"])) == depth]
    param = ".".join(map(str, _path(meant[0]["loc"])))
    if meant[0]["type"] == "missing":
        return f"{param} is missing; see /docs", param
    expected = " or ".join(dict.fromkeys(_expectation(problem) for problem in meant))
    seen = excerpt_of(meant[0]["input"], quoted=meant[0]["loc"][1] not in CONTENT_FIELDS)
    return f"{param} is {seen}; expected {expected}; see /docs", param


def _path(location: Sequence[Any]) -> list[Any]:
    """Return the fields and positions of a location, without its beginning and the types in it."""
    return [
        part
        for part in location[1:]
        if isinstance(part, int) or (part.isidentifier() and part.islower() and part not in _MEMBERS)
    ]


def _expectation(problem: Problem) -> str:
    text = _EXPECTED.get(problem["type"])
    return str(problem["msg"]) if text is None else text.format(**problem.get("ctx", {}))
