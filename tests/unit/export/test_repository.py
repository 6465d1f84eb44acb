import json
import os
import uuid
from pathlib import Path

import pytest
from fakes.dual_encoder import manifest_json
from lychee_client import ConfigurationError
from lychee_client.exports import restore_exports
from lychee_export.errors import WriteError
from lychee_export.repository.writing import ModelFolder, write_models

VERSION = 2**48 - 1


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def made(folder: Path, content: bytes) -> tuple[Path, ...]:
    """Make a file beside the folder for write_models to move."""
    path = folder.parent / f"{folder.name}-{uuid.uuid4()}" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(content)
    return (path,)


def test_models_are_written_with_variants_and_version_folder(tmp_path: Path) -> None:
    write_models(
        tmp_path,
        [
            ModelFolder("encoder", "name: 'encoder'", {"cpu": "plain"}, made(tmp_path, b"1")),
            ModelFolder("ensemble", "name: 'ensemble'"),
        ],
        VERSION,
    )
    assert (tmp_path / f"encoder/{VERSION}/model.onnx").read_bytes() == b"1"
    assert (tmp_path / "encoder/configs/cpu.pbtxt").read_text() == "plain"
    assert (tmp_path / f"ensemble/{VERSION}").is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["encoder", "ensemble"]


def test_each_model_has_the_version_of_the_last_export_and_no_other(tmp_path: Path) -> None:
    for version, content in ((VERSION, b"old"), (VERSION, b"old"), (3, b"new"), (VERSION, b"old")):
        models = [ModelFolder("encoder", "", files=made(tmp_path, content)), ModelFolder("ensemble", "")]
        write_models(tmp_path, models, version)
        assert {path.name for path in tmp_path.glob("*/[0-9]*")} == {str(version)}
        assert (tmp_path / "encoder" / str(version) / "model.onnx").read_bytes() == content


@pytest.mark.parametrize(("content", "kept"), [(b"same", True), (b"other", False)])
def test_what_was_built_from_the_same_files_is_kept_under_another_version(
    tmp_path: Path, content: bytes, kept: bool
) -> None:
    write_models(tmp_path, [ModelFolder("encoder", "", files=made(tmp_path, b"same"))], 1)
    (tmp_path / "encoder/1/model.plan").write_bytes(b"built")
    write_models(tmp_path, [ModelFolder("encoder", "", files=made(tmp_path, content))], VERSION)
    assert (tmp_path / f"encoder/{VERSION}/model.plan").exists() == kept


def test_clone_without_binaries_gets_the_version(tmp_path: Path) -> None:
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder/config.pbtxt").write_text("from git")
    write_models(tmp_path, [ModelFolder("encoder", "", files=made(tmp_path, b"1"))], VERSION)
    assert (tmp_path / f"encoder/{VERSION}/model.onnx").exists()


def test_other_models_and_own_variants_stay(tmp_path: Path) -> None:
    write_models(tmp_path / "repository", [ModelFolder("encoder", "", files=made(tmp_path, b"1"))], VERSION)
    own = tmp_path / "repository/encoder/configs/tuned.pbtxt"
    own.parent.mkdir()
    own.write_text("mine")
    other = tmp_path / "repository/other/1"
    other.mkdir(parents=True)
    write_models(tmp_path / "repository", [ModelFolder("encoder", "", files=made(tmp_path, b"2"))], VERSION)
    assert own.read_text() == "mine"
    assert other.is_dir()


@pytest.mark.parametrize("failing_move", [1, 2, 3, 4])
def test_failure_at_any_move_leaves_the_repository_untouched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing_move: int
) -> None:
    old = [ModelFolder(name, "old", files=made(tmp_path, b"old")) for name in ("first", "second")]
    new = [ModelFolder(name, "new", files=made(tmp_path, b"new")) for name in ("first", "second")]
    write_models(tmp_path, old, VERSION)
    before = snapshot(tmp_path)
    real_rename, moves = os.rename, 0

    def rename(source: Path, target: Path) -> None:
        nonlocal moves
        moves += 1
        if moves == failing_move:
            raise OSError("disk full")
        real_rename(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(WriteError, match="disk full; it is as it was"):
        write_models(tmp_path, new, VERSION)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(("config", "left"), [("same", {}), ("other", {"tuned": ["encoder"]})])
def test_a_variant_goes_on_with_a_model_of_the_same_configuration_alone(
    tmp_path: Path, config: str, left: dict[str, list[str]]
) -> None:
    repository = tmp_path / "repository"
    write_models(repository, [ModelFolder("encoder", "same", {"cpu": "old"})], VERSION)
    (repository / "encoder/configs/tuned.pbtxt").write_text("mine")
    told = write_models(repository, [ModelFolder("encoder", config, {"cpu": "new"})], 3, own_variants=["cpu"])
    assert told == left
    assert (repository / "encoder/configs/tuned.pbtxt").exists() != bool(left)
    assert (repository / "encoder/configs/cpu.pbtxt").read_text() == "new"


def with_manifest(folder: Path, version: int, config: str) -> list[ModelFolder]:
    """Return the models of an export that names its version."""
    (model,) = made(folder, f"{config}".encode())
    assets = model.parent / "manifest.json"
    assets.write_text(manifest_json(version=version, max_batch_size={"encoder": 1}))
    return [ModelFolder("encoder", config, files=(model,)), ModelFolder("client_assets", "", files=(assets,))]


def test_a_kept_export_that_is_made_again_has_what_was_built_and_tuned_for_it(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    write_models(repository, with_manifest(tmp_path, 1, "first"), 1, keep=3)
    (repository / "encoder/configs").mkdir()
    (repository / "encoder/configs/tuned.pbtxt").write_text("mine")
    (repository / "encoder/1/model.plan").write_bytes(b"built")
    assert write_models(repository, with_manifest(tmp_path, 2, "other"), 2, keep=3) == {"tuned": ["encoder"]}
    assert not (repository / "encoder/configs").exists()
    assert write_models(repository, with_manifest(tmp_path, 1, "first"), 1, keep=3) == {}
    assert (repository / "encoder/configs/tuned.pbtxt").read_text() == "mine"
    assert (repository / "encoder/1/model.plan").read_bytes() == b"built"


def test_what_cannot_be_put_back_is_not_removed_with_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository, real = tmp_path / "repository", os.rename
    write_models(repository, with_manifest(tmp_path, 1, "old"), 1)
    before, new = snapshot(repository), with_manifest(tmp_path, 2, "new")
    moves = 0

    def rename(source: Path, target: Path) -> None:
        nonlocal moves
        moves += 1
        if moves >= 4:
            raise OSError("disk gone")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        with pytest.raises(ConfigurationError, match="half-way between two exports"):
            write_models(repository, new, 2)
    assert json.loads((repository / "client_assets/.moves.json").read_text())
    restore_exports(repository)
    assert {name: text for name, text in snapshot(repository).items() if "/.staging-" not in name} == before


def test_leftover_of_a_killed_export_is_removed(tmp_path: Path) -> None:
    leftover = tmp_path / ".staging-killed/new"
    leftover.mkdir(parents=True)
    write_models(tmp_path, [ModelFolder("encoder", "")], VERSION)
    assert not leftover.exists()


def test_repository_that_is_a_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot write the model repository"):
        write_models(tmp_path / "file", [ModelFolder("encoder", "")], VERSION)
