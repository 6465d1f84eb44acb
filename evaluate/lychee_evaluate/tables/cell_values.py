"""What a cell says: labels, numbers, and texts that a spreadsheet must not take for formulas."""

from __future__ import annotations

import re
import unicodedata
from typing import Any, Final

# Full-width signs count too: Chinese and Japanese spreadsheets turn them into plain ones.
_FORMULA: Final = re.compile(r"'*[=+\-@＝＋－＠\t\r\n]")
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?", re.ASCII)
_DECIMAL_COMMA: Final = re.compile(r"[+-]?[0-9]*,[0-9]+", re.ASCII)
# What spreadsheets put where a formula has no value. Source: ECMA-376-1, 18.17.3, and Microsoft's later ones.
_ERRORS: Final = (
    "#N/A #REF! #VALUE! #DIV/0! #NAME? #NULL! #NUM! #SPILL! #CALC! #FIELD! #BLOCKED! #CONNECT! #GETTING_DATA"
)
ERRORS: Final = frozenset(_ERRORS.split())
# Truth values of Excel in its languages, and what people write instead.
_TRUE: Final = (
    "true yes y t relevant wahr ja vrai oui verdadero sí si vero да истина 是 真 对 對 有 相关 相關 正确 正確 ✓ ✔ √ ○"
)
_FALSE: Final = (
    "false no n f irrelevant falsch nein faux non falso нет ложь 否 假 错 錯 无 無 非 不 不是 不对 不對 不相关 不相關 "
    "无关 無關 错误 錯誤 ✗ ✘ ×"
)
_LABELS: Final = dict.fromkeys(_TRUE.split(), True) | dict.fromkeys(_FALSE.split(), False)


def normalize(text: str) -> str:
    """Return a text with full-width characters as plain ones, without blanks around it."""
    return unicodedata.normalize("NFKC", text).strip()


def parse_number(value: Any, *, decimal_comma: bool = False) -> float | None:
    """Return what a cell says as a number: 0.5, "0.5", "５０％", and "0,5" if `decimal_comma`; None if it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            return None
    if not isinstance(value, str):
        return None
    text = normalize(value).casefold().replace("−", "-")
    is_percentage = text.endswith("%")
    text = text.removesuffix("%").rstrip()
    if decimal_comma and _DECIMAL_COMMA.fullmatch(text):
        text = text.replace(",", ".")
    if not _NUMBER.fullmatch(text):
        return None
    return float(text) / 100 if is_percentage else float(text)


def parse_label(value: Any) -> bool | None:
    """Return what a cell says about relevance; None if it says nothing.

    Raises:
        ValueError: It says something else.
    """
    if isinstance(value, bool):
        return value
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    number = parse_number(value, decimal_comma=True)
    if number in (0, 1):
        return bool(number)
    label = _LABELS.get(normalize(value).casefold().rstrip(".。!！")) if isinstance(value, str) else None
    if label is None:
        raise ValueError(f"{value!r} is no label")
    return label


def protect_cell(text: str) -> str:
    """Put an apostrophe before what a spreadsheet would take for a formula."""
    return "'" + text if _FORMULA.match(text) else text


def restore_cell(text: str) -> str:
    """Take away the apostrophe that `protect_cell` has put there."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text
