"""The command, with measurements that were not made."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from lychee_loadtest.memory import cli
from lychee_loadtest.memory.layers import SizeRun
from typer.testing import CliRunner

MB = 1_000_000


def invoke(*arguments: str) -> Any:
    """Run the command in this process."""
    app = typer.Typer()
    cli.register(app)
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def measured(measure: Any, size_run: Callable[..., SizeRun], monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """Measure nothing; return a list of the tokens that were asked for."""
    asked: list[int | None] = []
    vision = measure(size_run(None, 10 * MB), model="vision_encoder", reads_images=True, max_batch_size=16)
    text = measure(size_run(256, 5 * MB), size_run(512, 10 * MB))

    def give(repository: Path, config_name: str | None, tokens: int | None) -> list[Any]:
        asked.append(tokens)
        return [text, vision]

    monkeypatch.setattr(cli, "_measure", give)
    return asked


@pytest.mark.parametrize(("limit", "code", "verdict"), [("4GB", 0, "fits into"), ("1GB", 1, "does not fit into")])
def test_the_exit_status_is_the_answer(measured: list[int | None], limit: str, code: int, verdict: str) -> None:
    result = invoke("--repository", "models", "--batch", "24", "--images", "--tokens", "512", "--limit", limit)
    assert result.exit_code == code, result.output
    last = result.output.strip().splitlines()[-1]
    assert last.startswith(f"Batch 24 with images and texts of up to 512 tokens {verdict} {limit[0]}.00 GB")
    assert measured == [512]


def test_every_layer_and_every_smaller_batch_is_shown(measured: list[int | None]) -> None:
    result = invoke("--repository", "models", "--images")
    assert result.exit_code == 0
    assert len(measured) == 1
    table = result.output.partition("every process in full")[0]
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines()[1:] if line.split()}
    # instances, batch, weights, attention, temporary, framework, all, error, loading
    assert rows["vision_encoder"] == ["1", "16*", "220", "0", "160", "100", "480", "24", "700"]
    assert "vision_encoder was measured up to 8 rows; 16 are extrapolated" in result.output
    (batches,) = [line for line in result.output.splitlines() if line.startswith("by batch")]
    assert [part.split(":")[0].split()[-1] for part in batches.partition(": ")[2].split("; ")] == [
        *("1", "2", "4", "8", "16", "24", "32")
    ]


def test_json_to_the_standard_output_comes_alone(measured: list[int | None]) -> None:
    result = invoke("--repository", "models", "--batch", "8", "--limit", "4GB", "--json", "-")
    data = json.loads(result.stdout)
    assert data["verdict"] == "fits"
    assert data["question"] == {"batch": 8, "images": False, "tokens": 512, "limit_bytes": 4 * 10**9}
    assert [need["batch"] for need in data["deployment"]] == [1, 2, 4, 8]
    assert len(measured) == 1


@pytest.mark.usefixtures("measured")
def test_the_picture_is_asked_for_by_its_path(tmp_path: Path) -> None:
    assert invoke("--repository", "models", "--output", str(tmp_path / "memory.png")).exit_code == 0
    assert (tmp_path / "memory.png").is_file()


def test_images_are_refused_where_no_model_reads_them(measure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_measure", lambda *_: [measure()])
    result = invoke("--repository", "models", "--images")
    assert result.exit_code == 2
    assert "no model in models reads images" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repository", "nowhere"], "nowhere does not exist"),
        (["--limit", "4"], "'4' is not an amount of memory"),
        (["--repository", ".", "--plan", "plan.json"], "give --live as well"),
    ],
)
def test_what_cannot_be_answered_is_explained(arguments: list[str], message: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_without_a_server_live_says_how_to_start_one() -> None:
    result = invoke("--live")
    assert result.exit_code == 3
    assert "lychee load" in result.output
