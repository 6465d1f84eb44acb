"""Amounts of memory."""

from __future__ import annotations

import pytest
from lychee_loadtest.memory.size_text import parse_size
from lychee_server.errors import SettingsError


@pytest.mark.parametrize(
    ("text", "size"), [("4GB", 4 * 10**9), ("4 GiB", 2**32), ("512m", 2**29), ("1.5gb", 1_500_000_000), ("2Gi", 2**31)]
)
def test_units_are_read_as_docker_and_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["4", "GB", "4 elephants", "-1GB", "0GB", ""])
def test_what_is_no_amount_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(SettingsError, match="not an amount of memory; expected a number with a unit, such as 4GB"):
        parse_size(text)
