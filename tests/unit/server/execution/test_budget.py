"""How an error budget is written."""

from __future__ import annotations

import pytest
from lychee_client.manifest import DEFAULT_ERROR_BUDGET
from lychee_server.errors import SettingsError
from lychee_server.execution import format_budget, parse_budget


@pytest.mark.parametrize(
    ("text", "budget"), [("exact", 0.0), (" Exact ", 0.0), ("0", 0.0), ("0.01", 0.01), ("0.1", 0.1)]
)
def test_a_budget_is_a_number_or_exact(text: str, budget: float) -> None:
    assert parse_budget(text) == budget


@pytest.mark.parametrize("text", ["", "fast", "-0.01", "0.11", "nan", "inf"])
def test_another_budget_is_refused_with_what_is_expected(text: str) -> None:
    with pytest.raises(SettingsError, match=r"error budget is .*expected 'exact', or a number from 0 to 0\.1"):
        parse_budget(text)


@pytest.mark.parametrize("budget", [0.0, DEFAULT_ERROR_BUDGET, 0.1])
def test_a_budget_is_written_as_it_is_read(budget: float) -> None:
    assert parse_budget(format_budget(budget)) == budget
