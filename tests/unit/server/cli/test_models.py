"""`lychee models`: what a repository holds."""

from __future__ import annotations

import json
import types
from pathlib import Path

import pytest
import typer
from fakes.dual_encoder import manifest_json
from lychee_client.repository import ASSETS_MODEL, MANIFEST_FILENAME, VALIDATION_FILENAME
from lychee_server import state
from lychee_server.cli import register
from typer.testing import CliRunner


def write_export(folder: Path, version: int, at: str) -> None:
    place = folder / ASSETS_MODEL / str(version)
    place.mkdir(parents=True)
    (place / MANIFEST_FILENAME).write_text(manifest_json(version=version, precision="w8"), encoding="utf-8")
    encoder = folder / "text_encoder" / str(version)
    encoder.mkdir(parents=True)
    (encoder / "model.onnx").write_bytes(bytes(3 << 20))
    (folder / VALIDATION_FILENAME).write_text(json.dumps({"exported_at": at}), encoding="utf-8")


def run(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    register(app)
    done = CliRunner().invoke(app, ["models", *arguments])
    return done.exit_code, done.output


def test_exports_are_listed_with_size_and_which_is_current(tmp_path: Path) -> None:
    write_export(tmp_path, 12, "2026-11-28T05:00:00+00:00")
    write_export(tmp_path / ASSETS_MODEL / "previous" / "11", 11, "2026-11-27T05:00:00+00:00")
    code, text = run("--repository", str(tmp_path))
    assert code == 0
    header, newest, older = text.splitlines()
    assert header.split() == ["version", "model", "revision", "family", "precision", "exported", "MiB"]
    assert (newest.split()[0], newest.split()[-2:]) == ("12", ["3", "current"])
    assert (older.split()[0], older.split()[-1]) == ("11", "3")
    told = json.loads(run("--repository", str(tmp_path), "--json")[1])
    assert [(export["version"], export["current"], export["precision"]) for export in told["exports"]] == [
        (12, True, "w8"),
        (11, False, "w8"),
    ]
    assert told["exports"][1]["exported_at"] == "2026-11-27T05:00:00+00:00"


def test_what_a_running_server_has_is_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_export(tmp_path, 12, "2026-11-28T05:00:00+00:00")
    write_export(tmp_path / ASSETS_MODEL / "previous" / "11", 11, "2026-11-27T05:00:00+00:00")
    triton = types.SimpleNamespace(repository=str(tmp_path), version=11)
    known = types.SimpleNamespace(is_running=lambda: True, tritons=(triton,))
    monkeypatch.setattr(state, "read_state", lambda: known)
    newest, older = run("--repository", str(tmp_path))[1].splitlines()[1:]
    assert (newest.endswith("current"), older.endswith("served")) == (True, True)
    told = json.loads(run("--repository", str(tmp_path), "--json")[1])["exports"]
    assert [export["served"] for export in told] == [False, True]
    triton.repository = str(tmp_path / "another")
    assert "served" not in run("--repository", str(tmp_path))[1]


def test_a_folder_without_an_export_is_an_error(tmp_path: Path) -> None:
    code, text = run("--repository", str(tmp_path))
    assert code != 0
    assert "holds no export; run `lychee export`" in text
