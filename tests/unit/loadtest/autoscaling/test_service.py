"""Service times from what `lychee tune` measured."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from lychee_loadtest.autoscaling.service import MEASURED, read_service_times
from lychee_server.errors import SettingsError


def test_the_measured_times_are_those_of_the_documentation(root: Path) -> None:
    page = (root / "docs" / "how-to" / "tune.md").read_text(encoding="utf-8")
    for inputs in ("16 tokens", "64 tokens", "224 x 224"):
        block = page[page.index(f" {inputs}      rows/s") :].split("rows/s", 2)[1]
        rows = re.findall(r"batch (\d+) +([\d.]+) ", block)
        service = read_service_times(MEASURED, inputs)
        speeds = [count / seconds for count, seconds in zip(service.rows, service.seconds, strict=True)]
        assert [(str(count), f"{speed:.1f}") for count, speed in zip(service.rows, speeds, strict=True)] == rows


def test_times_lie_straight_between_the_measured_sizes() -> None:
    service = read_service_times(MEASURED)
    by_rows = service.by_rows()
    assert len(by_rows) == 33
    assert by_rows[8] == pytest.approx(8 / 148.7)
    assert by_rows[12] == pytest.approx((8 / 148.7 + 16 / 159.0) / 2)
    assert service.rows_per_s == pytest.approx(166.6)
    assert service.sigma == pytest.approx(0.172, abs=0.001)
    assert service.where == "AMD EPYC (Zen 3: AVX2, no bfloat16), 2 cores, 2026-11-23"


def test_unknown_inputs_name_those_that_there_are() -> None:
    with pytest.raises(SettingsError, match="expected one of '16 tokens', '64 tokens', '224 x 224'"):
        read_service_times(MEASURED, "512 tokens")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"models": [{}]}'])
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(SettingsError, match=re.escape(str(path))):
        read_service_times(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        read_service_times(tmp_path / "none.json")
