"""The files that `lychee tune` writes, and those that it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lychee_loadtest.tune.variant import (
    check_name,
    check_writable,
    variant_path,
    variant_text,
    whole_view,
    write_variants,
)
from lychee_server.errors import SettingsError


@pytest.fixture
def config(parse: Callable[[str], Any], dual_repository: Path) -> Any:
    return parse((dual_repository / "text_encoder" / "config.pbtxt").read_text(encoding="utf-8"))


def test_the_header_is_a_comment_that_says_why(config: Any, parse: Callable[[str], Any]) -> None:
    text = variant_text(config, "from a measurement.", ["8 is " + "much " * 40 + "faster"])
    header = [line for line in text.splitlines() if line.startswith("#")]
    assert header[0] == "# Written by `lychee tune` from a measurement."
    assert header[1].startswith("# 8 is much")
    assert all(len(line) <= 120 for line in header)
    assert parse(text) == config


@pytest.mark.parametrize("name", ["", "../evil", "a/b", ".hidden", "two words"])
def test_names_that_are_no_file_names_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="--name is"):
        check_name(name)


def test_a_handwritten_variant_is_kept_unless_forced(dual_repository: Path) -> None:
    folder = dual_repository / "text_encoder"
    path = variant_path(folder, "tuned")
    path.parent.mkdir()
    path.write_text('name: "text_encoder"\n', encoding="utf-8")
    with pytest.raises(SettingsError, match="did not write it; choose another --name, or --force"):
        check_writable(folder, "tuned", force=False)
    check_writable(folder, "tuned", force=True)


def test_an_own_variant_may_be_replaced(dual_repository: Path, config: Any) -> None:
    write_variants(dual_repository, "tuned", {"text_encoder": variant_text(config, "once.", [])})
    check_writable(dual_repository / "text_encoder", "tuned", force=False)


def test_the_view_shows_the_variant_before_the_repository_has_it(dual_repository: Path, config: Any) -> None:
    before = sorted(dual_repository.rglob("*"))
    (dual_repository / "vision_encoder" / "configs").mkdir()
    (dual_repository / "vision_encoder" / "configs" / "cpu.pbtxt").write_text("", encoding="utf-8")
    with whole_view(dual_repository, "tuned", {"text_encoder": variant_text(config, "x", [])}) as view:
        assert variant_path(view / "text_encoder", "tuned").is_file()
        assert (view / "text_encoder" / "1" / "model.onnx").exists()
        assert (view / "vision_encoder" / "configs" / "cpu.pbtxt").exists()
        assert not variant_path(dual_repository / "text_encoder", "tuned").exists()
    assert not view.exists()
    assert set(before) <= set(dual_repository.rglob("*"))
