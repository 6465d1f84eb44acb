"""An export that stops half-way leaves the repository as it was, and goes on where it stopped."""

import copy
import errno
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from fakes.dual_encoder import manifest_json
from lychee_export import estimate, exporter, work_keys
from lychee_export.cli import register
from lychee_export.errors import ValidationError, WriteError
from lychee_export.exporter import export_checkpoint
from lychee_export.families import Checkpoint, Piece
from lychee_export.repository.workspace import Workspace, unfinished_exports
from lychee_export.verification.validation import Parity
from msgspec import structs
from typer.testing import CliRunner

Load = Callable[[Checkpoint], None]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def two_pieces(weighted: Checkpoint) -> Checkpoint:
    """Return a checkpoint with a second encoder that no ensemble uses."""
    (piece,) = weighted.pieces
    spare = replace(piece.signature, name="spare")
    return replace(weighted, pieces=(piece, Piece(spare, piece.module, piece.sample_inputs)))


def interrupt_at(line: str) -> Callable[[str], None]:
    def progress(seen: str) -> None:
        if seen == line:
            raise KeyboardInterrupt

    return progress


def test_finished_models_are_reused_after_an_interruption(tmp_path: Path, two_pieces: Checkpoint, load: Load) -> None:
    load(two_pieces)
    with pytest.raises(KeyboardInterrupt):
        export_checkpoint("toy", tmp_path, progress=interrupt_at("exporting spare"))
    (folder,) = unfinished_exports(tmp_path)
    assert folder.parent.name == "client_assets", "Triton would take it for a model"
    assert [path.name for path in tmp_path.iterdir()] == ["client_assets"]
    lines: list[str] = []
    export_checkpoint("toy", tmp_path, progress=lines.append)
    assert "encoder is finished already" in lines
    assert "exporting spare" in lines
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "client_assets",
        "encoder",
        "rerank",
        "spare",
        "validation.json",
    ]


def test_work_on_something_else_is_cleaned_and_not_reused(tmp_path: Path, two_pieces: Checkpoint, load: Load) -> None:
    load(two_pieces)
    with pytest.raises(KeyboardInterrupt):
        export_checkpoint("toy", tmp_path, progress=interrupt_at("exporting spare"))
    load(
        replace(two_pieces, card=replace(two_pieces.card, spec=structs.replace(two_pieces.card.spec, revision="other")))
    )
    lines: list[str] = []
    export_checkpoint("toy", tmp_path, progress=lines.append)
    assert "exporting encoder" in lines
    assert not unfinished_exports(tmp_path)


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Return a function that lets every validation fail, or pass as it does."""
    real = exporter.validate_values

    def fail(*_: object) -> Parity:
        raise ValidationError("encoder: an element differs")

    return lambda refused: monkeypatch.setattr(exporter, "validate_values", fail if refused else real)


def test_failed_validation_keeps_the_models_and_the_same_command_validates_them_again(
    tmp_path: Path, two_pieces: Checkpoint, load: Load, refuse: Callable[[bool], None]
) -> None:
    again = copy.deepcopy(two_pieces)  # an export frees the weights of its modules
    load(two_pieces)
    refuse(True)
    with pytest.raises(ValidationError, match=r"an element differs\. .* kept in .*\.export-.* \(0\.\d MB\)\. The same"):
        export_checkpoint("toy", tmp_path)
    (kept,) = unfinished_exports(tmp_path)
    assert sorted(path.name for path in kept.iterdir()) == ["encoder", "spare"]
    lines: list[str] = []
    load(again)
    refuse(False)
    export_checkpoint("toy", tmp_path, progress=lines.append)
    assert not any(line.startswith("exporting") for line in lines)
    assert "validating" in lines
    assert not unfinished_exports(tmp_path)


@pytest.mark.parametrize("resume", [False, True])
def test_only_resume_takes_over_the_models_of_another_version(
    tmp_path: Path, two_pieces: Checkpoint, load: Load, monkeypatch: pytest.MonkeyPatch, resume: bool
) -> None:
    load(two_pieces)
    with pytest.raises(KeyboardInterrupt):
        export_checkpoint("toy", tmp_path, progress=interrupt_at("exporting spare"))
    monkeypatch.setattr(work_keys, "created_by", lambda: {"lychee-rerank-export": "99"})
    lines: list[str] = []
    export_checkpoint("toy", tmp_path, progress=lines.append, resume=resume)
    assert ("encoder is finished already" in lines) is resume
    assert not unfinished_exports(tmp_path)


def test_resume_without_an_unfinished_export_is_refused(tmp_path: Path, two_pieces: Checkpoint, load: Load) -> None:
    load(two_pieces)
    with pytest.raises(WriteError, match=r"nothing to resume: .*models holds no unfinished export .* \(0 of others\)"):
        export_checkpoint("toy", tmp_path / "models", resume=True)
    assert not (tmp_path / "models").exists()
    with pytest.raises(KeyboardInterrupt):
        export_checkpoint("toy", tmp_path, progress=interrupt_at("exporting spare"))
    with pytest.raises(WriteError, match=r"\(1 of others\)"):
        export_checkpoint("toy", tmp_path, target="cuda", resume=True)
    assert len(unfinished_exports(tmp_path)) == 1


def test_validation_that_fails_before_a_model_is_finished_leaves_nothing(
    tmp_path: Path, two_pieces: Checkpoint, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_contract(*_: object) -> None:
        raise ValidationError("encoder: the ONNX file's inputs are wrong")

    load(two_pieces)
    monkeypatch.setattr(exporter, "validate_contract", break_contract)
    with pytest.raises(ValidationError, match=r"inputs are wrong$"):
        export_checkpoint("toy", tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_finished_model_that_was_damaged_is_made_again(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "models", "key")
    workspace.make("encoder", lambda folder: (folder / "model.onnx").write_bytes(b"whole"))
    assert workspace.find("encoder") is not None
    (workspace.folder / "encoder" / "model.onnx").write_bytes(b"half")
    assert workspace.find("encoder") is None


def test_half_made_model_does_not_count(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "models", "key")

    def write(folder: Path) -> None:
        (folder / "model.onnx").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workspace.make("encoder", write)
    assert Workspace(tmp_path / "models", "key").find("encoder") is None


def test_two_exports_into_one_repository_at_once_are_refused(
    tmp_path: Path, two_pieces: Checkpoint, load: Load
) -> None:
    first = Workspace(tmp_path, "key")
    load(two_pieces)
    with first.kept_if_useful():
        with pytest.raises(WriteError, match=r"another `lychee export` is writing .*; wait until it is done"):
            export_checkpoint("toy", tmp_path)
        with (
            pytest.raises(WriteError, match="another `lychee export` is writing"),
            Workspace(tmp_path, "key").kept_if_useful(),
        ):
            raise AssertionError
        assert first.folder.is_dir()


def test_model_that_a_killed_process_finished_is_found(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from lychee_export.repository.workspace import Workspace\n"
        "workspace = Workspace(Path(sys.argv[1]), 'key')\n"
        "workspace.make('first', lambda folder: (folder / 'model.onnx').write_bytes(b'1'))\n"
        "workspace.make('second', lambda _: os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    workspace = Workspace(tmp_path, "key")
    assert workspace.find("first") is not None
    assert workspace.find("second") is None


def test_too_little_disk_space_is_found_out_first(
    tmp_path: Path, weighted: Checkpoint, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(weighted)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(estimate.shutil, "disk_usage", lambda _: usage(10, 9, 1_000_000))
    with pytest.raises(WriteError, match=r"needs 0\.00 GB in .*models, and 0\.00 GB are free"):
        export_checkpoint("toy", tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_full_disk_leaves_the_repository_untouched(
    tmp_path: Path, toy: Checkpoint, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(toy)
    export_checkpoint("toy", tmp_path)
    before = snapshot(tmp_path)

    def export(_: Piece, path: Path) -> None:
        path.write_bytes(b"some")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(exporter, "export_onnx", export)
    with pytest.raises(WriteError, match="No space left on device; it is as it was"):
        export_checkpoint("toy", tmp_path, "w8")
    assert snapshot(tmp_path) == before


def test_repository_that_cannot_be_made_is_reported(tmp_path: Path, toy: Checkpoint, load: Load) -> None:
    load(toy)
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot write the model repository"):
        export_checkpoint("toy", tmp_path / "file")


def test_models_of_the_previous_checkpoint_go_and_foreign_ones_stay(
    tmp_path: Path, two_pieces: Checkpoint, toy: Checkpoint, load: Load
) -> None:
    (tmp_path / "foreign" / "1").mkdir(parents=True)
    load(two_pieces)
    export_checkpoint("toy", tmp_path)
    assert (tmp_path / "spare").is_dir()
    load(toy)
    export_checkpoint("toy", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "client_assets",
        "encoder",
        "foreign",
        "rerank",
        "validation.json",
    ]


def test_manifest_of_a_stranger_removes_nothing_outside(tmp_path: Path, toy: Checkpoint, load: Load) -> None:
    repository, outside = tmp_path / "models", tmp_path / "outside"
    outside.mkdir()
    assets = repository / "client_assets" / "1"
    assets.mkdir(parents=True)
    (assets / "manifest.json").write_text(manifest_json(max_batch_size={"../outside": 1, "..": 1, "": 1}))
    load(toy)
    export_checkpoint("toy", repository, replace=lambda problem: True)
    assert outside.is_dir()


def test_command_ends_with_130_on_ctrl_c(
    tmp_path: Path, toy: Checkpoint, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(toy)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(exporter, "export_onnx", interrupted)
    app = typer.Typer()
    register(app)
    app.command("other")(lambda: None)
    result = CliRunner().invoke(app, ["export", "toy", "--repository", str(tmp_path)])
    assert result.exit_code == 130
    assert "the same command goes on" in result.stderr.lower()
    assert [path.name for path in tmp_path.rglob("*.onnx")] == []
    shutil.rmtree(unfinished_exports(tmp_path)[0])
