"""`lychee memory`: a prediction by real processes, against a real server."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from lychee_loadtest.memory import cli
from lychee_loadtest.memory.report import read_expected
from lychee_server import TritonServer, state
from lychee_server.state import ServerState
from lychee_server.supervision.served import ServedRepository
from typer.testing import CliRunner

pytestmark = pytest.mark.triton
MODELS = ("accelerated", "lookup")


def invoke(*arguments: str) -> Any:
    """Run the command in this process."""
    app = typer.Typer()
    cli.register(app)
    return CliRunner().invoke(app, arguments)


def test_a_prediction_is_near_what_the_server_holds(
    server: TritonServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, plan, picture = tmp_path / "models", tmp_path / "plan.json", tmp_path / "memory.png"
    models.mkdir()
    for name in MODELS:
        (models / name).symlink_to(server.repository / name)
    question = ["--repository", str(models), "--tokens", "16", "--limit", "4GB"]
    before = invoke(*question, "--json", str(plan), "--output", str(picture))
    assert before.exit_code == 0, before.output
    assert "Batch 8 with texts of up to 16 tokens fits into 4.00 GB" in before.output
    assert picture.read_bytes().startswith(b"\x89PNG")
    providers = {model["model"]: model["provider"] for model in json.loads(plan.read_text())["measured"]}
    assert providers == {"accelerated": "OpenVINOExecutionProvider", "lookup": "CPUExecutionProvider"}

    served = ServedRepository("", server, server.metrics_port).describe()
    known = replace(ServerState.of([served], server.key), marker=server.marker)
    monkeypatch.setattr(state, "read_state", lambda: known)
    during = invoke("--live", "--plan", str(plan), "--json", "-")
    assert during.exit_code == 0, during.output
    found = {process["name"]: process for process in json.loads(during.stdout)["processes"]}
    assert found["tritonserver"]["kind"] == "triton"
    expected = read_expected(plan).by_model
    for name in MODELS:
        process = found[f"{name}_0_0"]
        held = process["memory"]["rss_bytes"]
        assert held == pytest.approx(expected[name], rel=0.3)
        assert held == process["framework_bytes"] + process["weight_bytes"] + process["tensor_bytes"]
        assert process["memory"]["pss_bytes"] < held <= process["memory"]["peak_bytes"]
    table = invoke()
    assert table.exit_code == 0
    assert "accelerated_0_0" in table.output
