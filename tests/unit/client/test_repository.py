"""Which of a model's folders is the one that Triton serves, and what the newest export says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.dual_encoder import manifest_json
from lychee_client.repository import ASSETS_MODEL, MANIFEST_FILENAME, newest_version, read_manifest, version_folders


def test_versions_are_numbers_that_do_not_begin_with_zero(tmp_path: Path) -> None:
    for name in ("3", "10", "0007", "0", "configs", "²", "1.5"):
        (tmp_path / name).mkdir()
    (tmp_path / "11").write_text("a file", encoding="utf-8")
    assert version_folders(tmp_path) == [3, 10]
    assert newest_version(tmp_path) == tmp_path / "10"


def test_a_model_without_versions_gets_its_first(tmp_path: Path) -> None:
    assert version_folders(tmp_path / "absent") == []
    assert newest_version(tmp_path / "absent") == tmp_path / "absent" / "1"


@pytest.mark.parametrize("content", [None, "no JSON", "[1]", "null"])
def test_a_manifest_that_cannot_be_read_is_none(tmp_path: Path, content: str | None) -> None:
    folder = tmp_path / ASSETS_MODEL / "2"
    folder.mkdir(parents=True)
    if content is not None:
        (folder / MANIFEST_FILENAME).write_text(content, encoding="utf-8")
    assert read_manifest(tmp_path) is None


def test_the_newest_manifest_is_read(tmp_path: Path) -> None:
    for version in (1, 2, 10):
        folder = tmp_path / ASSETS_MODEL / str(version)
        folder.mkdir(parents=True)
        (folder / MANIFEST_FILENAME).write_text(manifest_json(revision=str(version)), encoding="utf-8")
    manifest = read_manifest(tmp_path)
    assert manifest is not None
    assert manifest.revision == "10"
