"""Exports that a repository keeps: which there are, and making another one the current one, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.dual_encoder import manifest_json
from lychee_client import ConfigurationError
from lychee_client.exports import find_export, list_exports, replace_export, restore_exports, use_export
from lychee_client.repository import ASSETS_MODEL, BUILD_SCRIPT, MANIFEST_FILENAME, VALIDATION_FILENAME

MODELS = ("text_encoder", "vision_encoder", ASSETS_MODEL)


def write_export(folder: Path, version: int | None, at: str | None = None, *, script: bool = False) -> Path:
    """Lay out an export whose files tell its version."""
    for model in MODELS:
        place = folder / model / str(version or 1)
        place.mkdir(parents=True)
        (place / "model.onnx").write_text(f"{model} of {version}", encoding="utf-8")
        (folder / model / "config.pbtxt").write_text(f"of {version}", encoding="utf-8")
    changes = {} if version is None else {"version": version}
    manifest = folder / ASSETS_MODEL / str(version or 1) / MANIFEST_FILENAME
    manifest.write_text(manifest_json(revision=str(version), **changes), encoding="utf-8")
    if at is not None:
        (folder / VALIDATION_FILENAME).write_text(json.dumps({"exported_at": at}), encoding="utf-8")
    if script:
        (folder / BUILD_SCRIPT).write_text("#!/bin/sh", encoding="utf-8")
    return folder


def install(
    repository: Path, version: int | None, at: str | None = None, keep: int = 3, *, script: bool = False
) -> None:
    """Replace the current export as the exporter does."""
    work = repository.parent / f"work-{version}"
    leaving = repository.parent / f"leaving-{version}"
    leaving.mkdir()
    repository.mkdir(exist_ok=True)
    replace_export(repository, write_export(work, version, at, script=script), leaving, MODELS, keep)


def snapshot(folder: Path) -> dict[str, str | None]:
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8") if path.is_file() else None
        for path in folder.rglob("*")
    }


def current(repository: Path) -> int:
    (export,) = [export for export in list_exports(repository) if export.is_current]
    return export.version


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository with three exports, of which the last one is the current one."""
    folder = tmp_path / "models"
    for version in (5, 9, 7):
        install(folder, version, f"2026-11-0{len(list_exports(folder)) + 1}T12:00:00+00:00", script=version == 9)
    return folder


def test_exports_are_listed_by_time_the_newest_first(repository: Path) -> None:
    exports = list_exports(repository)
    assert [(export.version, export.is_current) for export in exports] == [(7, True), (9, False), (5, False)]
    assert [export.path.name for export in exports] == ["models", "9", "5"]
    assert str(exports[0].exported_at) == "2026-11-03 12:00:00+00:00"
    assert exports[1].manifest.revision == "9"
    assert find_export(repository, 9) == repository / ASSETS_MODEL / "previous" / "9"
    assert find_export(repository, 6) is None
    assert list_exports(repository / "absent") == ()


def test_all_of_an_export_moves_and_nothing_else(repository: Path) -> None:
    (repository / "own_model/1").mkdir(parents=True)
    (repository / ASSETS_MODEL / ".export-key").mkdir()
    use_export(repository, 9)
    assert current(repository) == 9
    for model in MODELS:
        assert [child.name for child in (repository / model).iterdir() if child.name.isdigit()] == ["9"]
        assert (repository / model / "9/model.onnx").read_text(encoding="utf-8") == f"{model} of 9"
        assert (repository / model / "config.pbtxt").read_text(encoding="utf-8") == "of 9"
    assert (repository / BUILD_SCRIPT).exists()
    assert (repository / "own_model/1").is_dir()
    assert (repository / ASSETS_MODEL / ".export-key").is_dir()
    use_export(repository, 7)
    assert not (repository / BUILD_SCRIPT).exists()
    assert [export.version for export in list_exports(repository)] == [7, 9, 5]
    assert sorted(path.name for path in (repository / ASSETS_MODEL / "previous").iterdir()) == ["5", "9"]


def test_there_and_back_is_what_it_was(repository: Path) -> None:
    before = snapshot(repository)
    use_export(repository, 5)
    assert snapshot(repository) != before
    use_export(repository, 7)
    use_export(repository, 7)
    assert snapshot(repository) == before


@pytest.mark.parametrize("failing", range(1, 22, 2))
def test_a_failure_at_any_move_changes_nothing(repository: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    before, real, moves = snapshot(repository), os.rename, 0

    def rename(source: Path, target: Path) -> None:
        nonlocal moves
        moves += 1
        if moves == failing:
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    try:
        use_export(repository, 9)
    except ConfigurationError as error:
        assert "No space left on device; all is as it was" in str(error)  # noqa: PT017
        left = {name: text for name, text in snapshot(repository).items() if "/.leaving" not in name}
        assert left == before
    else:
        assert moves < failing


@pytest.mark.parametrize("failing", range(1, 13))
def test_ctrl_c_at_any_move_changes_nothing(repository: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    before, real, moves = snapshot(repository), os.rename, 0

    def rename(source: Path, target: Path) -> None:
        nonlocal moves
        moves += 1
        if moves == failing:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    try:
        use_export(repository, 9)
    except KeyboardInterrupt:
        assert {name: text for name, text in snapshot(repository).items() if "/.leaving" not in name} == before
    else:
        assert moves < failing


KILLED = """
import os, sys
from pathlib import Path
from lychee_client.exports import use_export
real, left = os.rename, int(sys.argv[2])
def rename(source, target):
    global left
    left -= 1
    if left == 0:
        os._exit(9)
    real(source, target)
os.rename = rename
use_export(Path(sys.argv[1]), 9)
"""


@pytest.mark.parametrize("failing", range(2, 13, 2))
def test_what_a_killed_process_left_half_way_is_undone(repository: Path, failing: int) -> None:
    before = snapshot(repository)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(repository), str(failing)], check=False)
    moved = shutil.move(repository, repository.with_name("elsewhere"))
    shutil.move(moved, repository)
    restore_exports(repository)
    if killed.returncode:
        assert {name: text for name, text in snapshot(repository).items() if "/.leaving" not in name} == before
    use_export(repository, 9)
    use_export(repository, 7)
    assert snapshot(repository) == before


def test_what_cannot_be_put_back_is_said(repository: Path) -> None:
    (repository / ASSETS_MODEL / ".moves.json").mkdir()
    with pytest.raises(ConfigurationError, match="half-way between two exports, and cannot be put back"):
        restore_exports(repository)


def test_what_was_replaced_stays_although_it_is_the_oldest(repository: Path) -> None:
    use_export(repository, 5)
    install(repository, 3, "2026-11-09T12:00:00+00:00", 3)
    assert [export.version for export in list_exports(repository)] == [3, 7, 5]


def test_what_is_left_of_an_export_that_moved_is_in_nobodys_way(repository: Path) -> None:
    (repository / ASSETS_MODEL / "previous/7" / ASSETS_MODEL).mkdir(parents=True)
    use_export(repository, 9)
    use_export(repository, 7)
    assert [export.version for export in list_exports(repository)] == [7, 9, 5]


def test_what_is_not_there_is_named(repository: Path) -> None:
    with pytest.raises(ConfigurationError, match="has no export 6; it has 7, 9, 5"):
        use_export(repository, 6)


@pytest.mark.parametrize(("keep", "expected"), [(1, [3]), (2, [3, 7]), (3, [3, 7, 9]), (9, [3, 7, 9, 5])])
def test_the_oldest_beyond_the_number_go(repository: Path, keep: int, expected: list[int]) -> None:
    install(repository, 3, "2026-11-09T12:00:00+00:00", keep)
    assert [export.version for export in list_exports(repository)] == expected
    assert (repository / ASSETS_MODEL / "previous").exists() == (keep > 1)


def test_an_export_that_was_kept_is_there_once_when_it_is_made_again(repository: Path) -> None:
    install(repository.parent / "models", 9 + 100, "2026-11-04T12:00:00+00:00")
    write_export(repository.parent / "again", 9, "2026-11-05T12:00:00+00:00")
    (repository.parent / "out").mkdir()
    replace_export(repository, repository.parent / "again", repository.parent / "out", MODELS, 5)
    assert [export.version for export in list_exports(repository)] == [9, 109, 7]


def test_the_same_export_again_keeps_nothing_of_itself(repository: Path) -> None:
    write_export(repository.parent / "again", 7, "2026-11-05T12:00:00+00:00")
    (repository.parent / "out").mkdir()
    replace_export(repository, repository.parent / "again", repository.parent / "out", MODELS, 3)
    assert [export.version for export in list_exports(repository)] == [7, 9, 5]


def test_an_export_of_before_versions_is_replaced_and_listed_by_the_time_of_its_file(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    install(folder, None)
    (old,) = list_exports(folder)
    assert (old.version, old.is_current, old.exported_at is None) == (0, True, False)
    install(folder, 4)
    assert [export.version for export in list_exports(folder)] == [4]


def test_what_cannot_be_kept_is_not_replaced_by_a_kept_one(repository: Path) -> None:
    for path in (repository / ASSETS_MODEL).glob(f"[0-9]*/{MANIFEST_FILENAME}"):
        path.write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="has no version and could not be kept"):
        use_export(repository, 9)
