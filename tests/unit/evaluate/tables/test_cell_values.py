"""Labels and numbers as spreadsheets and people write them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lychee_evaluate.tables.cell_values import parse_label, parse_number

YES = "1 1.0 1,0 １ １．０ 1e0 100% TRUE true ＴＲＵＥ yes Y 是 真 对 相关 正确 對 相關 WAHR VRAI ✓ √ 是。 有 Relevant"
NO = "0 0.0 0,0 ０ -0 FALSE no N 否 假 错 不相关 无关 不是 錯 FALSCH FAUX × irrelevant"


@pytest.mark.parametrize("value", [1, 1.0, True, " 1 ", *YES.split()])
def test_yes(value: Any) -> None:
    assert parse_label(value) is True


@pytest.mark.parametrize("value", [0, 0.0, False, *NO.split()])
def test_no(value: Any) -> None:
    assert parse_label(value) is False


@pytest.mark.parametrize("value", [None, "", "  ", "\u3000"])
def test_nothing(value: Any) -> None:
    assert parse_label(value) is None


@pytest.mark.parametrize("value", [2, 0.5, "2", "0.5", "maybe", "也许", "10", "nan", "inf", "0_1", [1], {}, "1 1", "x"])
def test_neither(value: Any) -> None:
    with pytest.raises(ValueError, match="no label"):
        parse_label(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0.25", 0.25),
        (".5", 0.5),
        ("５０％", 0.5),
        ("0,5", None),
        (0.5, 0.5),
        (1, 1.0),
        ("1e-3", 0.001),
        ("−1", -1.0),
        ("1,000.5", None),
        ("1_0", None),
        ("nan", None),
        ("", None),
        (True, None),
        (None, None),
        (10**400, None),
    ],
)
def test_numbers(value: Any, expected: float | None) -> None:
    assert parse_number(value) == expected


@given(st.floats(min_value=0, max_value=1))
def test_decimal_commas_are_read_where_they_are_meant(number: float) -> None:
    text = f"{number:.6f}"
    assert parse_number(text.replace(".", ","), decimal_comma=True) == float(text)
    assert parse_number("1.000,5", decimal_comma=True) is None
