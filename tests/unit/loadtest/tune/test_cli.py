"""The options of `lychee tune`, without measuring."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from lychee_loadtest.tune.cli import register
from lychee_loadtest.tune.profiles import read_profiles
from lychee_loadtest.tune.settings import current_settings
from lychee_loadtest.tune.variant import variant_path
from typer.testing import CliRunner

RUNNER = CliRunner()


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    register(app)
    return app


def read_batches(repository: Path, model: str, parse: Callable[[str], Any]) -> tuple[int, ...]:
    return current_settings(parse(variant_path(repository / model, "tuned").read_text(encoding="utf-8"))).batches


@pytest.mark.parametrize(
    ("profile", "texts", "images"), [("rtx-3060", 8, 2), ("rtx-3090", 24, 6), ("a10", 32, 8), ("jetson-orin-8gb", 4, 1)]
)
def test_a_profile_writes_its_batches_marked_as_not_measured(
    app: typer.Typer, dual_repository: Path, parse: Callable[[str], Any], profile: str, texts: int, images: int
) -> None:
    result = RUNNER.invoke(app, ["--repository", str(dual_repository), "--profile", profile])
    assert result.exit_code == 0, result.output
    assert read_batches(dual_repository, "text_encoder", parse) == (texts,)
    assert read_batches(dual_repository, "vision_encoder", parse) == (images,)
    assert "a starting point from the literature, not measured here" in result.stdout
    header = variant_path(dual_repository / "text_encoder", "tuned").read_text(encoding="utf-8").splitlines()[:2]
    assert header[0].startswith(f"# Written by `lychee tune` from the profile {profile}")
    assert header[1] == "# This is a starting point from the literature, not measured here."
    assert "--config-name tuned" in result.stdout


def test_a_profile_keeps_to_the_models_largest_batch(
    app: typer.Typer, cross_repository: Path, parse: Callable[[str], Any]
) -> None:
    result = RUNNER.invoke(app, ["--repository", str(cross_repository), "--profile", "a10", "--modality", "text"])
    assert result.exit_code == 0, result.output
    assert read_batches(cross_repository, "text_encoder", parse) == (8,)
    text = variant_path(cross_repository / "text_encoder", "tuned").read_text(encoding="utf-8")
    assert "The profile's 32 is above the model's max_batch_size 8." in text
    assert not variant_path(cross_repository / "vision_encoder", "tuned").exists()


def test_profiles_are_listed_as_not_measured_and_documented(app: typer.Typer, root: Path) -> None:
    result = RUNNER.invoke(app, ["--list-profiles"])
    assert result.exit_code == 0
    assert "not measured here" in result.stdout
    page = (root / "docs" / "how-to" / "tune.md").read_text(encoding="utf-8")
    for name, profile in read_profiles().items():
        texts, images = profile.batches["text"], profile.batches["image"]
        assert re.search(rf"{name} +texts +{texts}, images +{images}\b", result.stdout)
        assert f"| `{name}` | {texts} | {images} |" in page


def test_an_unknown_profile_names_those_that_there_are(app: typer.Typer, dual_repository: Path) -> None:
    result = RUNNER.invoke(app, ["--repository", str(dual_repository), "--profile", "rtx-9090"])
    assert result.exit_code == 2
    assert "expected one of rtx-3060, rtx-3090, a10, jetson-orin-8gb" in result.stderr


def test_a_handwritten_variant_stops_the_command_before_it_measures(app: typer.Typer, dual_repository: Path) -> None:
    path = variant_path(dual_repository / "vision_encoder", "tuned")
    path.parent.mkdir()
    path.write_text("mine", encoding="utf-8")
    result = RUNNER.invoke(app, ["--repository", str(dual_repository)])
    assert result.exit_code == 2
    assert "did not write it" in result.stderr
    assert path.read_text(encoding="utf-8") == "mine"


def test_a_repository_without_encoders_says_what_is_expected(app: typer.Typer, tmp_path: Path) -> None:
    (tmp_path / "other" / "1").mkdir(parents=True)
    (tmp_path / "other" / "config.pbtxt").write_text('name: "other" backend: "python"', encoding="utf-8")
    result = RUNNER.invoke(app, ["--repository", str(tmp_path)])
    assert result.exit_code == 2
    assert "expected text_encoder or vision_encoder" in result.stderr


def test_models_for_a_gpu_are_not_measured_here(app: typer.Typer, dual_repository: Path) -> None:
    path = dual_repository / "text_encoder" / "config.pbtxt"
    path.write_text(path.read_text(encoding="utf-8").replace("KIND_CPU", "KIND_GPU"), encoding="utf-8")
    result = RUNNER.invoke(app, ["--repository", str(dual_repository)])
    assert result.exit_code == 2
    assert "or take a starting point with --profile" in result.stderr


def test_an_output_folder_that_cannot_be_made_is_named(app: typer.Typer, dual_repository: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = RUNNER.invoke(app, ["--repository", str(dual_repository), "--output", str(tmp_path / "file")])
    assert result.exit_code == 1
    assert f"{tmp_path / 'file'} cannot be made" in result.stderr
