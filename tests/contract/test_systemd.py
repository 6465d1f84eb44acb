"""The unit of systemd is one that systemd reads, and starts a command that exists."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import typer.main
from lychee_client.cli import add_commands, app

MOST_EXPOSURE = 2.5  # of 10; what systemd-analyze calls OK ends at 4


@pytest.fixture
def unit(root: Path, tmp_path: Path) -> Path:
    """Return the unit with a program that this machine has."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    text = (root / "deploy" / "systemd" / "lychee-rerank.service").read_text(encoding="utf-8")
    path = tmp_path / "lychee-rerank.service"
    path.write_text(text.replace("/opt/lychee/bin/lychee", "/bin/true"), encoding="utf-8")
    return path


def test_systemd_reads_the_unit_without_a_complaint(unit: Path) -> None:
    verified = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")


def test_the_unit_is_confined(unit: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=true", unit]
    rated = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    level = re.search(r"Overall exposure level for lychee-rerank.service: ([\d.]+)", rated)
    assert level is not None, rated
    assert float(level[1]) <= MOST_EXPOSURE


def test_the_command_of_the_unit_exists(root: Path) -> None:
    text = (root / "deploy" / "systemd" / "lychee-rerank.service").read_text(encoding="utf-8")
    (line,) = re.findall(r"^ExecStart=\S+/lychee (.+)$", text, re.MULTILINE)
    if "load" not in {command.name for command in app.registered_commands}:
        add_commands(app)
    name, *arguments = line.split()
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {argument for argument in arguments if argument.startswith("--")} <= known
