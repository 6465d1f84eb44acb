import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import typer
from lychee_client.exports import list_exports
from lychee_client.manifest import parse_manifest
from lychee_client.repository import newest_version
from lychee_export import exporter
from lychee_export.cli import register
from lychee_export.errors import ValidationError
from lychee_export.exporter import export_checkpoint
from lychee_export.families import Checkpoint, Piece
from lychee_export.repository.deployment import config_files
from lychee_export.repository.workspace import unfinished_exports
from lychee_server.execution import serve
from msgspec import structs
from torch import Tensor
from typer.testing import CliRunner

Fault = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_export_writes_models_manifest_and_tokenizer(
    tmp_path: Path, toy: Checkpoint, load: Callable[[Checkpoint], None]
) -> None:
    load(toy)
    lines: list[str] = []
    report = export_checkpoint("toy", tmp_path, progress=lines.append)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "client_assets",
        "encoder",
        "rerank",
        "validation.json",
    ]
    manifest = json.loads((newest_version(tmp_path / "client_assets") / "manifest.json").read_text(encoding="utf-8"))
    assert parse_manifest(json.dumps(manifest)) == report.manifest
    assert manifest["golden_pairs"]["pairs"] == [
        {"query": {"text": "query"}, "document": {"text": "text"}, "relevance_score": 0.5}
    ]
    record = json.loads((tmp_path / "validation.json").read_text(encoding="utf-8"))
    assert 0 <= record["max_logit_error"] < 1e-5
    assert 0 <= record["logit_batch_invariance"] < 1e-5
    assets = onnx.load(newest_version(tmp_path / "client_assets") / "model.onnx")
    texts = {node.output[0]: node.attribute[0].t.string_data[0].decode() for node in assets.graph.node}
    assert json.loads(texts["manifest"]) == manifest
    assert texts["tokenizer"] == toy.card.tokenizer_json
    assert any("validating" in line for line in lines)


def test_failed_validation_leaves_the_repository_untouched(
    tmp_path: Path,
    toy: Checkpoint,
    load: Callable[[Checkpoint], None],
    make_piece: Callable[[Fault | None], Piece],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load(toy)
    export_checkpoint("toy", tmp_path)
    before = snapshot(tmp_path)
    real_export = exporter.export_onnx
    wrong = make_piece(lambda logits, _: (logits.sigmoid(), logits * 0.9))
    monkeypatch.setattr(exporter, "export_onnx", lambda _, path: real_export(wrong, path))
    with pytest.raises(ValidationError, match="differs from the reference"):
        export_checkpoint("toy", tmp_path)
    (kept,) = unfinished_exports(tmp_path)
    shutil.rmtree(kept)
    assert snapshot(tmp_path) == before


def test_second_export_changes_nothing(tmp_path: Path, toy: Checkpoint, load: Callable[[Checkpoint], None]) -> None:
    load(toy)
    export_checkpoint("toy", tmp_path)
    before = snapshot(tmp_path)
    export_checkpoint("toy", tmp_path)
    after = snapshot(tmp_path)
    for files in (before, after):  # says when it was exported
        assert files.pop("validation.json")
    assert after == before


def test_changed_model_id_gives_all_models_a_new_version(
    tmp_path: Path, toy: Checkpoint, load: Callable[[Checkpoint], None]
) -> None:
    load(toy)
    first = export_checkpoint("toy", tmp_path).manifest
    assert {path.name for path in tmp_path.glob("*/[0-9]*")} == {str(first.version)}
    load(replace(toy, card=replace(toy.card, spec=structs.replace(toy.card.spec, model_id="other"))))
    second = export_checkpoint(
        "toy", tmp_path, replace=lambda problem: "toy" in problem and "other" in problem
    ).manifest
    assert first.version != second.version
    assert [export.version for export in list_exports(tmp_path)] == [second.version, first.version]
    assert {str(path.parent.relative_to(tmp_path)) for path in tmp_path.glob("*/*/model.onnx")} == {
        f"client_assets/{second.version}",
        f"encoder/{second.version}",
    }


def test_what_executes_an_encoder_is_left_open_where_a_server_may_choose(toy: Checkpoint) -> None:
    signatures = [toy.pieces[0].signature]
    for precision in ("fp32", "s8"):
        config, variants = config_files(signatures, precision)["encoder"]  # type: ignore[arg-type]
        assert 'key: "execution"' in config
        assert "openvino" not in config
        assert "openvino" in variants["openvino"]
        assert "openvino" not in variants["cpu"]
        assert not any('key: "execution"' in variant for variant in variants.values())
    for precision in ("fp16", "w8", "w4"):
        config, variants = config_files(signatures, precision)["encoder"]  # type: ignore[arg-type]
        assert "openvino" not in config
        assert not variants


@pytest.fixture
def app() -> typer.Typer:
    """Return an application with the command and another one, so that its name must be given."""
    application = typer.Typer()
    register(application)
    application.command("other")(lambda: None)
    return application


def test_command_reports_an_unknown_checkpoint(app: typer.Typer, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["export", str(tmp_path / "nowhere"), "--repository", str(tmp_path / "models")])
    assert result.exit_code == 1
    assert "lychee: no checkpoint" in result.stderr
    assert not (tmp_path / "models").exists()


def test_command_refuses_an_unknown_precision(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["export", "lychee-mini", "--precision", "int8"])
    assert result.exit_code == 2
    assert "fp32, fp16, bf16, w8, w4" in result.stderr


def test_command_prints_what_it_measured(
    app: typer.Typer, tmp_path: Path, toy: Checkpoint, load: Callable[[Checkpoint], None]
) -> None:
    load(toy)
    result = CliRunner().invoke(app, ["export", "toy", "--repository", str(tmp_path / "my models")])
    assert result.exit_code == 0, result.output
    assert "of a logit" in result.stdout
    assert "ranking order kept (tau 1.00)" in result.stdout
    named = shlex.join(["lychee", "load", "--repository", str(tmp_path / "my models")])
    assert result.stdout.endswith(f"is ready; load it with: {named}\n")


def test_command_names_the_default_repository_to_load_without_an_option(
    app: typer.Typer,
    tmp_path: Path,
    toy: Checkpoint,
    load: Callable[[Checkpoint], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load(toy)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["export", "toy", "--precision", "FP32"])
    assert result.stdout.endswith("model_repository is ready; load it with: lychee load\n"), result.output


def test_weights_in_a_file_of_their_own_are_exported_and_served(
    tmp_path: Path, weighted: Checkpoint, load: Callable[[Checkpoint], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    load(weighted)
    real_export = exporter.export_onnx
    monkeypatch.setattr(exporter, "export_onnx", lambda piece, path: real_export(piece, path, external_data_bytes=0))
    export_checkpoint("toy", tmp_path / "models")
    assert (newest_version(tmp_path / "models/encoder") / "model.onnx.data").is_file()
    served = serve(tmp_path / "models", None, 0.01, tmp_path / "cache")
    assert served.note.startswith("measured in ")
